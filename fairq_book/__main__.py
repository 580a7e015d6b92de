"""`python -m fairq_book` is `fairq`."""

from fairq_book.cli.main import main

if __name__ == "__main__":
    main()
