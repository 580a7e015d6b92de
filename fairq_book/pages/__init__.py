"""Pages that are no chapters."""
