"""The machinery of the book: experiments, chapters, pages, build and command line."""
