"""The sentences of the chapter on language: each with a guard, and plain numbers where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from fairq_audit.formats import counted, signed
from fairq_book.chapters.language.kept import SEEDS, Kept
from fairq_book.chapters.language.questions import QUESTIONS, Languages
from fairq_book.chapters.language.secondary import Asked, asked, readings
from fairq_book.chapters.language.treatments import REPAIRED, WIDTHS
from fairq_book.kit.interventions import answer
from fairq_book.kit.wording import Prose, points, with_interval
from fairq_utils.metrics.verdicts import Reading

_TO_FOUR_BITS = WIDTHS[:-1]
_PARTS = ["int3-zeros", "int3-nonzeros", "int4-mse-clipped", "int4-mse-unclipped"]
_PARTS += ["int4-inside", "int4-ends", "a4"]


@dataclass(frozen=True, eq=False)
class Findings:
    """What the networks that were measured say, each number read once."""

    kept: Kept

    @cached_property
    def languages(self) -> Languages:
        """The answers, by treatment and measure."""
        return Languages(self.kept.answers)

    @cached_property
    def readings(self) -> Mapping[str, Reading]:
        """Of each primary question by itself, and of all that is secondary together."""
        primary = {one.key: one.reading(self.languages) for one in QUESTIONS}
        return {**primary, **readings(self.languages, self.kept.landscape)}

    @cached_property
    def _asked(self) -> Mapping[str, Asked]:
        return asked(self.languages.names)

    def all(self, word: str, keys: Sequence[str]) -> bool:
        """Whether the same is said of each of these."""
        return all(self.readings[key].word == word for key in keys)

    def no_larger_than_margins(self, question: str) -> bool:
        """Whether, down to four bits, the slope is surely within its margin."""
        own = [self.readings[f"{question}, int{bits}"] for bits in _TO_FOUR_BITS]
        return all(one.word == "no change" or one.negligible for one in own)

    def words_of_languages(self, treatment: str) -> list[str]:
        """What is said of the accuracy of each language."""
        return [self.readings[f"{treatment} {name}"].word for name in self.languages.names]

    def in_doubt(self, share: float) -> float:
        """Of how many bytes full precision gave its answer less than half, where so much was read."""
        own = self.languages.table.query("treatment == 'fp32' and share == @share")
        return float(own["doubted"].sum() / own["bytes"].sum())

    @property
    def flips_in_doubt(self) -> float:
        """Which share of the flips at int4 is among the bytes of which full precision was in doubt."""
        own = self.languages.table.query("treatment == 'int4'")
        return float(own["flips_in_doubt"].sum() / own["flips"].sum())

    def mean(self, key: str) -> float:
        """What a question rests on, in points, without its interval."""
        return 100 * self.readings[key].estimate

    def number(self, key: str) -> str:
        """What a question rests on, in points with an interval, or as a factor where it is one."""
        own = self.readings[key]
        form = points if key not in self._asked or self._asked[key].in_points else _times
        return with_interval(form, own.estimate, own.lower, own.upper)

    def numbers(self, keys: Sequence[str]) -> str:
        """What several rest on; of a primary question its width says which."""
        return "; ".join(f"{key.rpartition(', ')[2]} {self.number(key)}" for key in keys)


def _times(log: float) -> str:
    """A factor, of which the logarithm to the base of two is given.

    >>> _times(1.0)
    '2.0 times'
    """
    return f"{2**log:.1f} times"


@dataclass(frozen=True)
class Sentence:
    """A sentence that a person wrote, and when it is true; where it is not, `numbers` are told."""

    says: Callable[[Findings], str]
    holds: Callable[[Findings], bool]
    about: str
    numbers: Sequence[str]

    def told(self, found: Findings) -> Prose:
        """The sentence, or what it is about with its numbers."""
        if self.holds(found):
            return Prose(self.says(found))
        networks = counted(found.kept.networks, "network")
        return Prose(f"{self.about}, in {networks}: {found.numbers(self.numbers)}.")


SENTENCES: dict[str, Sentence] = {}


def _sentence(
    key: str, *, holds: Callable[[Findings], bool], about: str, numbers: Sequence[str]
) -> Callable[[Callable[[Findings], str]], Callable[[Findings], str]]:
    """Enters the function below it as a sentence of that name."""

    def enter(says: Callable[[Findings], str]) -> Callable[[Findings], str]:
        SENTENCES[key] = Sentence(says, holds, about, numbers)
        return says

    return enter


def _at(question: str, widths: Sequence[int] = WIDTHS) -> list[str]:
    return [f"{question}, int{bits}" for bits in widths]


def _of_repairs(question: str) -> list[str]:
    return [f"{question}, {one.name}" for one in REPAIRED]


@_sentence(
    "longer",
    holds=lambda found: found.no_larger_than_margins("L1"),
    about="By how much longer an article becomes where an eighth was read than where all was, in points",
    numbers=_at("L1"),
)
def _longer(found: Findings) -> str:
    return (
        "**Length.** Having read less costs an article nothing extra. Down to four bits the line is level, "
        f"within the margins that were set before: {found.numbers(_at('L1', _TO_FOUR_BITS))} points."
    )


@_sentence(
    "flips",
    holds=lambda found: found.all("rises", _at("L2", _TO_FOUR_BITS[1:])),
    about="How many more answers flip where an eighth was read than where all was, in points",
    numbers=_at("L2"),
)
def _flips(found: Findings) -> str:
    return (
        "**Flips.** But more answers change where less was read. From a language with all its text to one "
        "with "
        f"an eighth, the share of bytes that flip grows by {found.numbers(_at('L2'))} points."
    )


@_sentence(
    "accuracy",
    holds=lambda found: found.no_larger_than_margins("L3") and found.readings["L2, int4"].word == "rises",
    about="How much more accuracy is kept where an eighth was read than where all was, in points",
    numbers=_at("L3"),
)
def _accuracy(found: Findings) -> str:
    return (
        "**Accuracy.** And those flips take no accuracy: down to four bits as much of it is kept where less "
        f"was read ({found.numbers(_at('L3', _TO_FOUR_BITS))} points). Before anything was rounded the "
        "network "
        f"was in doubt over {100 * found.in_doubt(1 / 8):.0f} % of the bytes where an eighth was read, and "
        "over "
        f"{100 * found.in_doubt(1):.0f} % where all was: its answer had less than half the probability. At "
        "int4 "
        f"{100 * found.flips_in_doubt:.0f} % of all flips are among these, from one guess to another. At "
        "three "
        f"bits it is the other way round ({found.number('L3, int3')}): who has read more has more to lose."
    )


@_sentence(
    "scale or order",
    holds=lambda found: (
        found.all("rises", ["int4 extra of all"])
        and found.mean("int4-temperature extra of all") > 0.8 * found.mean("int4 extra of all")
    ),
    about="By how much longer an article becomes over all languages, in points",
    numbers=[
        "int4 extra of all",
        "int4-temperature extra of all",
        "int3 extra of all",
        "int3-temperature extra of all",
    ],
)
def _scale_or_order(found: Findings) -> str:
    four, three = (
        [found.mean(f"{name} extra of all") for name in (width, f"{width}-temperature")]
        for width in ("int4", "int3")
    )
    return (
        "**Scale or order?** The harm is in which bytes are thought likely, not in how sure the network "
        "is. At "
        f"int4 an article is {four[0]:.1f} % longer over all languages; with a temperature that makes the "
        f"network as sure as it was, {four[1]:.1f} %. At int3 it is {three[0]:.0f} and {three[1]:.0f} %."
    )


@_sentence(
    "parts",
    holds=lambda found: (
        found.all("rises", [f"{part} flips" for part in _PARTS])
        and all(found.mean(f"{part} extra") < 5 for part in _PARTS)
    ),
    about="How many more answers flip where an eighth was read than where all was, in points",
    numbers=[f"{part} flips" for part in _PARTS],
)
def _parts(found: Findings) -> str:
    most = max(found.mean(f"{part} extra") for part in _PARTS)
    return (
        "**Which part?** None in particular. Whether only the zero bin is emptied or only the rest is "
        "rounded, "
        "whether weights are cut off or moved to a step, inside the network or at its two ends, or inputs in "
        "place of weights: each time more answers flip where less was read. By how much longer an article "
        f"becomes there, in the mean, is at most {signed(most)} points."
    )


@_sentence(
    "loud",
    holds=lambda found: (
        found.all("rises", ["int4-scaled4 extra of all", "a4-scaled4 extra of all"])
        and found.mean("int4-scaled4 extra of all") > 5 * found.mean("int4 extra of all")
        and found.mean("a4-scaled4 extra of all") > 1.5 * found.mean("a4 extra of all")
    ),
    about="By how much longer an article becomes over all languages, in points",
    numbers=[
        "int4 extra of all",
        "int4-scaled4 extra of all",
        "a4 extra of all",
        "a4-scaled4 extra of all",
    ],
)
def _loud(found: Findings) -> str:
    weights, inputs = (
        [found.mean(f"{name} extra of all") for name in (start, f"{start}-scaled4")]
        for start in ("int4", "a4")
    )
    return (
        "**Loud channels.** One channel behind each layer norm four times as loud, which the next layer "
        "undoes, "
        f"changes nothing in full precision. At int4 an article is then {weights[1]:.0f} % longer in place "
        "of "
        f"{weights[0]:.0f} %, and with inputs of four bits {inputs[1]:.0f} % in place of {inputs[0]:.0f} %."
    )


_STEEP = [f"{one} {what}" for one in ("fp32", "int4") for what in ("gradient", "eigenvalue")]


@_sentence(
    "steep",
    holds=lambda found: found.all("rises", _STEEP) and found.no_larger_than_margins("L3"),
    about="Squared gradient norm, in points of its mean, and top eigenvalue, from all the text to an eighth",
    numbers=_STEEP,
)
def _steep(found: Findings) -> str:
    return (
        "**Steeper, and no dearer.** Where less was read the loss is steeper, and it bends more: from all "
        "the "
        f"text to an eighth the top eigenvalue becomes {found.number('fp32 eigenvalue')} as large in full "
        f"precision, and {found.number('int4 eigenvalue')} at int4. By the theory of chapter 4 these "
        "languages "
        "lose more. They do not."
    )


@_sentence(
    "repairs",
    holds=lambda found: (
        found.all("rises", _of_repairs("L6"))
        and not any(found.readings[key].word == "rises" for key in _of_repairs("L5"))
        and found.readings["fp32-tuned-sampled accuracy"].word == "rises"
    ),
    about="By how many points a repair makes the line of accuracy over the share read less steep",
    numbers=[*_of_repairs("L5"), *_of_repairs("L6")],
)
def _repairs(found: Findings) -> str:
    return (
        "**What repairs.** Training while rounded brings languages no nearer than training as long in full "
        f"precision ({found.numbers(_of_repairs('L5'))} points). Loss weights with even sampling bring them "
        f"nearer ({found.numbers(_of_repairs('L6'))} points more). That is no repair of rounding: even "
        "sampling does it in full precision, too, by "
        f"{found.number('fp32-tuned-sampled accuracy')} points."
    )


@_sentence(
    "who pays",
    holds=lambda found: (
        "rises" not in found.words_of_languages("int4")
        and found.words_of_languages("int4").count("falls") > len(found.languages.names) / 2
    ),
    about="Change of accuracy over all languages, in points",
    numbers=["int4 accuracy of all", "int3 accuracy of all"],
)
def _who_pays(found: Findings) -> str:
    names = found.languages.names
    least, most = (which(names, key=lambda name: found.mean(f"int4 {name}")) for which in (max, min))
    return (
        f"**Who pays.** At int4 {found.words_of_languages('int4').count('falls')} of {len(names)} languages "
        f"surely lose accuracy and none gains: {least} changes least, by "
        f"{signed(found.mean(f'int4 {least}'))} "
        f"points, {most} most, by {signed(found.mean(f'int4 {most}'))}. Each held every share in turn."
    )


@_sentence(
    "claims on flips",
    holds=lambda found: (
        found.mean("int4 flips of all") > -4 * found.mean("int4 accuracy of all") > 0
        and found.all("rises", ["int4 in doubt", "int4 against int8"])
        and "rises" not in found.words_of_languages("int4")
    ),
    about="Flips and accuracy over all languages, in points, and how many times as often answers flip",
    numbers=["int4 flips of all", "int4 accuracy of all", "int4 in doubt", "int4 against int8"],
)
def _claims_on_flips(found: Findings) -> str:
    return (
        f"**Four claims on flips.** At int4 {found.mean('int4 flips of all'):.0f} % of the answers change, "
        "while "
        f"accuracy falls by {-found.mean('int4 accuracy of all'):.1f} points: many flips hide behind a small "
        f"loss. Answers in doubt flip {found.number('int4 in doubt')} as often as others, where the study "
        "found "
        f"three to eleven. Four bits flip {found.number('int4 against int8')} as many as eight, where it "
        "found "
        "four to six. Its groups moved in opposite ways; of these languages none surely gained."
    )


def who_answers(kept: Kept) -> Prose:
    """How many networks there are, of how many that were registered, and by which code."""
    more = "" if kept.networks >= len(SEEDS) else " What they say is provisional: the others are to follow."
    return Prose(f"Measured earlier: {kept.made}, of {len(SEEDS)} that were registered.{more}")


def answers(kept: Kept) -> Prose:
    """Each primary question with its answers, and the numbers in points that these rest on."""
    found = findings(kept)
    lines: dict[str, list[str]] = {}
    for one in QUESTIONS:
        key, _, width = one.key.partition(", ")
        said = f"{width} *{answer(found.readings[one.key], one.yes)}*, {found.number(one.key)}".strip()
        lines.setdefault(f"- **{key}.** {one.asks}", []).append(said)
    return Prose("\n".join(f"{asks} {'; '.join(said)}." for asks, said in lines.items()))


@cache
def findings(kept: Kept) -> Findings:
    """What these networks say, read once for all sentences of a page."""
    return Findings(kept)


def tell(key: str, kept: Kept) -> Prose:
    """The sentence of that name, on the networks that were measured."""
    return SENTENCES[key].told(findings(kept))
