"""A folder a chapter; none knows another."""
