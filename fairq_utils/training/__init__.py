"""Train networks, in full precision and while rounded."""
