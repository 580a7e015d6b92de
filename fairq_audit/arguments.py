"""What `audit` is called with, looked at before anything is read: each refusal names the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fairq_utils.errors import BadInput

Word = TypeVar("Word", bound=str)


def group_columns(groups: Any) -> list[str]:
    """The columns of groups, as a list, when they are names of columns.

    >>> group_columns("group"), group_columns(("gender", "race"))
    (['group'], ['gender', 'race'])
    >>> group_columns(None)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: groups is None; expected one column or several, each once, such as
    gender,race.
    """
    columns = [groups] if isinstance(groups, str) else list(groups) if isinstance(groups, Sequence) else []
    names = all(isinstance(name, str) for name in columns)
    if not columns or not names or len(set(columns)) < len(columns) or set(columns) & {"id", "prediction"}:
        raise BadInput(f"groups is {groups}; expected one column or several, each once, such as gender,race.")
    return columns


def amount_columns(amounts: Any) -> list[str]:
    """The columns of amounts, as a list, when they are names of columns.

    >>> amount_columns(["loss"])
    ['loss']
    """
    listed = isinstance(amounts, Sequence) and not isinstance(amounts, str)
    columns: list[Any] = list(amounts) if listed else []
    named = all(isinstance(name, str) and name for name in columns)
    if not listed or not named or len(set(columns)) < len(columns):
        raise BadInput(f"amounts is {amounts!r}; expected names of columns, each once, such as ['loss'].")
    return columns


def one_of(name: str, given: Any, words: Mapping[Word, str]) -> Word:
    """The word that was given, if it is one of those; `words` says what each means.

    >>> one_of("decide_on", "upper", {"lower": "surely", "upper": "perhaps"})
    'upper'
    >>> one_of("decide_on", "middle", {"lower": "surely", "upper": "perhaps"})
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: decide_on is 'middle'; expected lower (surely) or upper (perhaps).
    """
    for word in words:
        if given == word:
            return word
    *first, last = [f"{word} ({meaning})" for word, meaning in words.items()]
    raise BadInput(f"{name} is {given!r}; expected {', '.join(first)} or {last}.")


def check(
    *,
    names: Any,
    margin: Any,
    confidence: Any,
    smallest_group: Any,
    fail_if: Any,
    seed: Any,
    description: Any,
) -> None:
    """Refuse arguments of a type that says nothing, or of a size that means nothing.

    >>> usual = {"names": None, "margin": None, "smallest_group": 20, "fail_if": [], "seed": 0}
    >>> check(**usual, confidence="0.95", description=None)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: confidence is '0.95'; expected a fraction from 0.5 to 1, such as 0.95.
    """
    named = names is None or (
        not isinstance(names, str)
        and isinstance(names, Sequence)
        and len(names) == 2
        and all(_is_text(name) for name in names)
    )
    cell = _is_whole(smallest_group) and smallest_group >= 2
    listed = isinstance(fail_if, Sequence) and not isinstance(fail_if, str)
    gates = listed and all(isinstance(gate, str) for gate in fail_if)
    for name, value, holds, expected in (
        ("names", names, named, "two names, of before and of after, such as ('fp32', 'int8')"),
        ("margin", margin, margin is None or _is_number(margin), "a fraction between 0 and 1, such as 0.02"),
        ("confidence", confidence, _is_number(confidence), "a fraction from 0.5 to 1, such as 0.95"),
        ("smallest_group", smallest_group, cell, "2 rows or more, such as 20"),
        ("fail_if", fail_if, gates, "gates, such as ['fvo_increase > 0.03']"),
        ("seed", seed, _is_whole(seed) and seed >= 0, "a whole number of at least 0"),
        ("description", description, description is None or _is_text(description), "text, or none"),
    ):
        if not holds:
            raise BadInput(f"{name} is {value!r}; expected {expected}.")


def _is_text(value: Any) -> bool:
    """Whether it is text that a file can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
