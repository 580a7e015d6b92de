"""Explore how the answers of each group are spread, and who flips: in a notebook and on a published page."""

from fairq_book.explorer.widget import Explorer

__all__ = ["Explorer"]
