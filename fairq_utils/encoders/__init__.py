"""Small encoders of images and texts, what they are taught and what they are asked."""
