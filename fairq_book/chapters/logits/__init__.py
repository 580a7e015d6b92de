"""The chapter on logits and the boundary: what it asks for, its tables, its figures and its story."""
