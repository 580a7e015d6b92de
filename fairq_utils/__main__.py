"""`python -m fairq_utils` is `fairq`."""

from fairq_utils.cli import main

if __name__ == "__main__":
    main()
