"""Exceptions that speak to the user rather than to the programmer."""


class BadInput(ValueError):
    """What was given, what was expected and what to do, in one sentence.

    Everything the package refuses, it refuses with this. The command line prints the sentence and
    exits with 2; a notebook shows the sentence instead of a traceback.

    >>> raise BadInput("bits is 1; expected a whole number from 2 to 16.")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: bits is 1; expected a whole number from 2 to 16.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


class ChapterFailed(Exception):
    """A cell of a chapter raised what nobody foresaw; the message holds its traceback."""
