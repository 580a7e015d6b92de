"""The `fairq` command."""
