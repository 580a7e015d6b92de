"""Images, labels and groups, and everything that chooses among them."""
