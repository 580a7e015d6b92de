"""Exceptions that speak to the user rather than to the programmer."""

from __future__ import annotations

from collections.abc import Mapping


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


class JobsFailed(Exception):
    """Some of what was asked for could not be made; the rest was, and is in the store.

    `failures` maps the name of each to the exception that it ended with; what needs it has the same.

    >>> error = BadInput("the loss became nan.")
    >>> raise JobsFailed({"seed3": error, "seed3-int4": error}, of=5)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.JobsFailed: 2 of 5 could not be made, the rest is in the store.
      seed3: the loss became nan. (1 more needs it)
    """

    def __init__(self, failures: Mapping[str, Exception], *, of: int) -> None:
        self.failures = dict(failures)
        names: dict[int, list[str]] = {}
        for name, error in failures.items():
            names.setdefault(id(error), []).append(name)
        errors = {id(error): error for error in failures.values()}
        lines = [f"  {own[0]}: {_said(errors[key])}{_more(len(own) - 1)}" for key, own in names.items()]
        super().__init__(
            "\n".join([f"{len(failures)} of {of} could not be made, the rest is in the store.", *lines])
        )
        self.__cause__ = next((e for e in failures.values() if not isinstance(e, BadInput)), None)


def _more(count: int) -> str:
    return f" ({count} more need{'s' if count == 1 else ''} it)" if count else ""


def _said(error: Exception) -> str:
    """The sentence of a refusal; of what nobody foresaw, also its kind."""
    return str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
