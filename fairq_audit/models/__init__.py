"""Open models, run them over images, and make the tables that an audit compares."""
