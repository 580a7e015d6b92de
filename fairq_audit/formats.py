"""How numbers, names and groups look wherever they are shown: in sentences, reports and drawings."""

import re
from collections.abc import Mapping

# At least 3 : 1 against white and against a dark page, so that one drawing serves both.
PALETTE = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")


def look(place: int) -> dict[str, str]:
    """Colour and mark of a group by its place in the data, so that it looks the same in all drawings.

    >>> look(1) == look(9)
    True
    """
    return {"colour": PALETTE[place % len(PALETTE)], "mark": MARKERS[place % len(MARKERS)]}


# -- numbers ------------------------------------------------------------------------------------------


def true_minus(text: str) -> str:
    """The text of a number with a minus in place of each hyphen.

    >>> true_minus("-1.2e-05")
    '−1.2e−05'
    """
    return text.replace("-", "−")


def number(value: float, digits: int = 1) -> str:
    """The value with a true minus, and without one before zero.

    >>> number(-0.04), number(-1.25, 2), number(12345.0, 0)
    ('0.0', '−1.25', '12,345')
    """
    return true_minus(f"{value:z,.{digits}f}")


def signed(value: float, digits: int = 1) -> str:
    """The value with its sign, which is a true minus, and with a plus before zero.

    >>> signed(3.14), signed(-0.25, 2), signed(-0.01)
    ('+3.1', '−0.25', '+0.0')
    """
    return true_minus(f"{value:+z.{digits}f}")


def four_digits(value: float) -> str:
    """A number of any size, to four digits.

    >>> four_digits(-0.012345), four_digits(12345.6), four_digits(0.0)
    ('−0.01235', '1.235e+04', '0')
    """
    return true_minus(f"{value:.4g}")


def hundredths(share: float) -> str:
    """A share in percent, or a difference of shares in points.

    >>> hundredths(0.4251), hundredths(-0.2)
    ('42.5', '−20.0')
    """
    return number(100 * share)


def short_hundredths(share: float) -> str:
    """A share in percent without needless places, such as a confidence.

    >>> short_hundredths(0.95), short_hundredths(0.995)
    ('95', '99.5')
    """
    return hundredths(share).removesuffix(".0")


def between(found: Mapping[str, float]) -> str:
    """The ends of an interval, in hundredths.

    >>> between({"lower": -0.02, "upper": 0.031})
    '−2.0 to 3.1'
    """
    return f"{hundredths(found['lower'])} to {hundredths(found['upper'])}"


def measured(found: Mapping[str, float], unit: str = "") -> str:
    """An estimate and its interval, in hundredths.

    >>> measured({"estimate": 0.01, "lower": -0.02, "upper": 0.031}, " points")
    '1.0 points (−2.0 to 3.1)'
    """
    return f"{hundredths(found['estimate'])}{unit} ({between(found)})"


def unsigned(change: Mapping[str, float]) -> Mapping[str, float]:
    """How far a change went, whichever way; the limits of a fall are turned with it.

    >>> unsigned({"estimate": -0.2, "lower": -0.3, "upper": -0.1})
    {'estimate': 0.2, 'lower': 0.1, 'upper': 0.3}
    """
    if change["estimate"] >= 0:
        return change
    return {"estimate": -change["estimate"], "lower": -change["upper"], "upper": -change["lower"]}


def directed(found: Mapping[str, float], up: str, down: str, unit: str = "") -> str:
    """A change in the word for its direction, and so without a minus before it.

    >>> directed({"estimate": -0.164, "lower": -0.218, "upper": -0.102}, "an increase", "a fall")
    'a fall of 16.4 (10.2 to 21.8)'
    """
    return f"{up if found['estimate'] >= 0 else down} of {measured(unsigned(found), unit)}"


def p_value(p: float) -> str:
    """A p-value to three places.

    >>> p_value(0.0123), p_value(1e-9)
    ('0.012', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else number(p, 3)


def counted(count: int, noun: str) -> str:
    """A count and its noun, in the plural where there are several or none.

    >>> counted(1, "image"), counted(12345, "image")
    ('1 image', '12,345 images')
    """
    return f"{number(count, 0)} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """A noun in the plural.

    >>> [plural(noun) for noun in ("row", "person", "box", "family", "day")]
    ['rows', 'people', 'boxes', 'families', 'days']
    """
    irregular = {"person": "people", "child": "children", "man": "men", "woman": "women"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


# -- names --------------------------------------------------------------------------------------------


def shown(text: str, longest: int = 60) -> str:
    """A name that somebody else chose, as it may stand in a sentence: in one line, and not endless.

    >>> shown("a\\nb\\x1b[31m")
    'a b [31m'
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def as_markdown(text: str) -> str:
    r"""The text as Markdown that reads the same, whatever the names in it look like.

    >>> print(as_markdown("<b> of *all*"))
    \<b\> of \*all\*
    """
    return re.sub(r"([\\`*_\[\]<>#|~&!$])", r"\\\1", text)
