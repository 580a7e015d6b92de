"""Run notebooks, and build and print the book."""
