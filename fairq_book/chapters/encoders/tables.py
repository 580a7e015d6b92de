"""The tables of the chapter on vision and language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats

from fairq_utils.encoders.linear_layers import ORIGINAL
from fairq_utils.encoders.questions import EncoderOutputs
from fairq_utils.errors import BadInput
from fairq_utils.intervals import holm, sign_test
from fairq_utils.metrics.groups import flipped
from fairq_utils.metrics.populations import equivalence_test, paired_test, sign_consistency
from fairq_utils.metrics.ranking import max_skew, ndkl, recall_at_k, recall_disparity

LOST = 0.2  # of its accuracy: a model that lost more has failed, and is set apart
MARGIN_OF_SHARES, MARGIN_OF_SKEWS = 0.02, 0.05  # the least change that matters: 2 points, 0.05 nats


def make(
    answers: Sequence[EncoderOutputs],
    of_twins: Sequence[EncoderOutputs],
    group: str,
    *,
    ks: Sequence[int],
    top: int,
) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name: of the encoders, and of their twins that were taught by labels."""
    measured, failed = measures(answers, group, ks=ks, top=top), failures(answers)
    measured_twins, failed_twins = measures(of_twins, group), failures(of_twins)
    both = pd.concat([failed, failed_twins], ignore_index=True)
    return {
        "measures": measured,
        "failures": failed,
        "by_model": by_model(measured, failed),
        "consistency": consistency(measured, failed),
        "by_query": consistency(skews(answers, group, top=top), failed),
        "lost_and_won": lost_and_won(answers, group),
        "classifier_failures": failed_twins,
        "classifier_consistency": consistency(measured_twins, failed_twins),
        "failures_of_both": both,
        "beyond_classifiers": beyond_classifiers(measured, measured_twins, both),
    }


def measures(
    given: Sequence[EncoderOutputs],
    group: str,
    *,
    ks: Sequence[int] = (1, 5, 10),
    top: int = 100,
    between: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """All measures of all answers, tidy: model, treatment, measure, group and value.

    - `accuracy` of each group and overall (OA), and its gap (FVO): zero-shot, over the averaged prompts;
    - `recall to text@k` and `recall to image@k` overall, and the former of each group;
    - `MaxSkew`, `MinSkew` and `NDKL` of the first `top` images of each neutral query, against the shares of
      all images, as means over the queries;
    - `flips`: the share of images, of each group and overall, whose answer is not that of the original;
    - with `between`, the `recall disparity` between two groups, as a mean over the classes that both have.

    What cannot be measured is left out: a group without images, labels or captions that were never given.
    """
    twice = pd.DataFrame([(one.model, one.treatment) for one in given]).duplicated()
    if twice.any():
        again = given[int(twice.argmax())]
        raise BadInput(
            f"{again.model} is given twice under {again.treatment}; expected each once: measure studies that "
            "differ in more than their names apart."
        )
    before = {one.model: one for one in given if one.treatment == ORIGINAL}
    rows = []
    for one in given:
        codes, names = one.codes(group)
        told: list[tuple[str, str, float]] = []
        if one.logits is not None and one.label is not None:
            told += _by_group("accuracy", one.correct, codes, names, gap=True)
            original = before[one.model].logits if one.model in before else None
            if original is not None:
                flips = flipped(original, one.logits)
                told += _by_group("flips", flips, codes, names)
            if between is not None:
                table = recall_disparity(
                    one.correct,
                    one.attributes[one.label],
                    codes,
                    between=between,
                    label_names=[str(name) for name in one.attributes[one.label].cat.categories],
                    group_names=names,
                )
                told.append(
                    (f"recall disparity, {between[0]} − {between[1]}", "OA", table["estimate"].mean())
                )
        for k in ks:
            if one.to_text is not None and one.to_image is not None:
                told += _by_group(f"recall to text@{k}", one.to_text.numpy() <= k, codes, names)
                told.append((f"recall to image@{k}", "OA", recall_at_k(one.to_image, k)))
        if one.queries is not None:
            mean = skews([one], group, top=top).groupby("measure", sort=False)["value"].mean()
            told += [(str(measure), "OA", float(value)) for measure, value in mean.items()]
        rows += [(one.model, one.treatment, *said) for said in told if not np.isnan(said[2])]
    return pd.DataFrame(rows, columns=["model", "treatment", "measure", "group", "value"])


def _by_group(
    measure: str, hit: np.ndarray, codes: np.ndarray, names: Sequence[str], *, gap: bool = False
) -> list[tuple[str, str, float]]:
    shares = {
        name: float(hit[codes == place].mean()) for place, name in enumerate(names) if (codes == place).any()
    }
    told = [(measure, name, share) for name, share in shares.items()]
    told.append((measure, "OA", float(hit.mean())))
    if gap:
        told.append((measure, "FVO", max(shares.values()) - min(shares.values())))
    return told


def skews(given: Sequence[EncoderOutputs], group: str, *, top: int = 100) -> pd.DataFrame:
    """MaxSkew, MinSkew and NDKL of the first `top` images of each neutral query: a row a model and query.

    Images that are equally close keep their order. A group that is missing from the top counts as half an
    image of it in MinSkew, which would be minus infinity otherwise; a group without any image is left out.
    """
    rows = []
    for one in given:
        if one.queries is None:
            raise BadInput(
                f"{one.model} was asked no neutral query; expected some: name them when it is asked."
            )
        codes, names = one.codes(group)
        count = len(codes)
        if type(top) is not int or not 1 <= top <= count:
            raise BadInput(
                f"top is {top!r}; expected a whole number from 1 to {count}, the number of images."
            )
        sizes = np.bincount(codes, minlength=len(names))
        there = [name for name, size in zip(names, sizes, strict=True) if size]
        due = {name: size / count for name, size in zip(names, sizes, strict=True) if size}
        for number, close in enumerate(one.queries):
            order = torch.sort(close, descending=True, stable=True).indices.numpy()[:top]
            first = np.array(names, dtype=object)[codes[order]]
            found = np.array([(first == name).sum() for name in there])
            least = np.log(np.maximum(found, 0.5) / top / np.array([due[name] for name in there])).min()
            told = {
                f"MaxSkew@{top}": max_skew(first, top, desired=due, group_names=there),
                f"MinSkew@{top}": float(least),
                f"NDKL@{top}": ndkl(first, desired=due, group_names=there),
            }
            rows += [(one.model, number, one.treatment, name, "OA", value) for name, value in told.items()]
    return pd.DataFrame(rows, columns=["model", "query", "treatment", "measure", "group", "value"])


def changes(table: pd.DataFrame, treatment: str) -> pd.DataFrame:
    """After minus before: a row a model (and query, where the table has them), a column a measure and group.

    `table` of `measures` or `skews`. Models that lack either are left out; so are measures of which the
    original has none, and those that some model lacks.
    """
    rows = [name for name in ("model", "query") if name in table]
    wide = table.pivot_table(
        index=["treatment", *rows], columns=["measure", "group"], values="value", sort=False
    )
    known = wide.index.get_level_values("treatment")
    for name in (ORIGINAL, treatment):
        if name not in known:
            raise BadInput(
                f"treatment {name!r} is not in the table; expected of: {', '.join(known.unique())}."
            )
    moved: pd.DataFrame = wide.xs(treatment) - wide.xs(ORIGINAL)  # type: ignore[assignment] # of a table it is one
    return moved.dropna(how="all").dropna(axis="columns")


def by_model(table: pd.DataFrame, failed: pd.DataFrame | None = None) -> pd.DataFrame:
    """The changes behind `consistency`, tidy: model, treatment, measure, group and change."""
    table = _standing(table, failed)
    parts = []
    for name in _rounded(table):
        wide = changes(table, name)
        long = wide.melt(ignore_index=False, value_name="change").reset_index()
        parts.append(long.assign(treatment=name))
    columns = ["model", "treatment", "measure", "group", "change"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def failures(given: Sequence[EncoderOutputs], *, lost: float = LOST) -> pd.DataFrame:
    """The signs that a model has failed: a row a model and treatment, `sign` empty where it stands.

    - random: its accuracy is not surely (one-sided binomial test at 5 %) above the share of the most
      frequent label, which one and the same answer to everything would reach;
    - lost: it lost more than `lost` of the original's accuracy.
    """
    before = {one.model: one.correct.mean() for one in given if one.treatment == ORIGINAL}
    rows = []
    for one in given:
        right, labels = one.correct, one.codes(one.label)[0]  # type: ignore[arg-type] # correct has refused None
        most = np.bincount(labels).max() / len(labels)
        guessed = stats.binomtest(int(right.sum()), len(right), float(most), alternative="greater").pvalue
        own = before.get(one.model, float("nan"))
        sign = "random" if guessed >= 0.05 else "lost" if right.mean() < (1 - lost) * own else ""
        rows.append((one.model, one.treatment, right.mean(), own, sign))
    return pd.DataFrame(rows, columns=["model", "treatment", "accuracy", "original", "sign"])


def fallen(failed: pd.DataFrame) -> pd.DataFrame:
    """The rows of `failures` that have a sign."""
    return failed[failed["sign"].isin(["random", "lost"])]  # in a kept table no sign is no text


def lost_and_won(given: Sequence[EncoderOutputs], group: str) -> pd.DataFrame:
    """Sign tests over all pairs of model and image: how many answers turned wrong, and how many right.

    A row a treatment and group; p_holm is corrected over the groups of a treatment. One image under
    several models is taken for several: the p-values are those of these very images.
    """
    before = {one.model: one.correct for one in given if one.treatment == ORIGINAL}
    rows = []
    for treatment in dict.fromkeys(one.treatment for one in given if one.treatment != ORIGINAL):
        own = [one for one in given if one.treatment == treatment and one.model in before]
        for place, name in enumerate(own[0].codes(group)[1] if own else []):
            lost = won = count = 0
            for one in own:
                member = one.codes(group)[0] == place
                was, now = before[one.model][member], one.correct[member]
                lost, won, count = (
                    lost + int((was & ~now).sum()),
                    won + int((~was & now).sum()),
                    count + len(was),
                )
            rows.append((treatment, name, count, lost, won, float(sign_test(lost, won))))
    table = pd.DataFrame(rows, columns=["treatment", "group", "n", "lost", "won", "p"])
    return table.assign(p_holm=table.groupby("treatment")["p"].transform(holm))


def consistency(
    table: pd.DataFrame, failed: pd.DataFrame | None = None, *, margins: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Whether each measure changes in one direction over the population: a row a treatment, measure, group.

    `table` of `measures`, or of `skews` for pairs of model and query; `failed` of `failures`, to set apart
    what has failed. `margins` names the least change that matters for a measure; else it is 2 points for
    shares and 0.05 nats for MaxSkew, MinSkew and NDKL. A row holds the mean change with its interval, p of
    the paired t-test, of the sign test and of the equivalence test, each after Holm over the measures of
    the treatment and family, and how many rise and fall. `family` is bias (FVO, the skews and the recall
    disparity), group (what each group gets) or overall. Flips have no before, and no row. A treatment that
    fewer than two models stand is left out.
    """
    table = _standing(table, failed)
    moved = {name: changes(table, name) for name in _rounded(table)}
    return _tested(moved, margins or {})


def beyond_classifiers(
    encoders: pd.DataFrame,
    classifiers: pd.DataFrame,
    failed: pd.DataFrame | None = None,
    *,
    margins: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """What quantization changes in encoders beyond what it changes in classifiers: as `consistency` has it.

    Both tables of `measures`, of the same population, once taught by captions and once by labels: a pair is
    a model of either, alike in all else. Only what both are asked for is compared, their accuracies.
    `failed` of `failures` of both; a pair of which either failed is set apart.
    """
    encoders, classifiers = _standing(encoders, failed), _standing(classifiers, failed)
    twins = classifiers.assign(model=classifiers["model"].str.replace("-labels", ""))
    moved = {}
    for name in _rounded(encoders):
        if name in set(twins["treatment"]):
            own, other = changes(encoders, name), changes(twins, name)
            moved[name] = (own - other).dropna(how="all").dropna(axis="columns")
    return _tested(moved, margins or {})


def _standing(table: pd.DataFrame, failed: pd.DataFrame | None) -> pd.DataFrame:
    """Without what has failed, and without flips, which have no before."""
    if failed is not None:
        down = fallen(failed)
        keys = pd.MultiIndex.from_frame(table[["model", "treatment"]])
        table = table[~keys.isin(pd.MultiIndex.from_frame(down[["model", "treatment"]]))]
    return table[table["measure"] != "flips"]


def _rounded(table: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(table["treatment"]))
    return [name for name in names if name != ORIGINAL] if ORIGINAL in names else []


def _tested(moved: Mapping[str, pd.DataFrame], margins: Mapping[str, float]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for treatment, table in moved.items():
        if len(table) < 2:
            continue
        names = [(str(column[0]), str(column[1])) for column in table.columns]
        table.columns = pd.RangeIndex(len(names))
        family = [_family(*name) for name in names]
        tests, signs = paired_test(table, families=family), sign_consistency(table)
        margin = [_margin(measure, margins) for measure, _ in names]
        within = pd.concat(
            [equivalence_test(table[[i]], margin[i]) for i in range(len(names))], ignore_index=True
        )
        parts.append(
            pd.DataFrame(
                {
                    "treatment": treatment,
                    "measure": [measure for measure, _ in names],
                    "group": [group for _, group in names],
                    "family": family,
                    **{name: tests[name] for name in ("n", "estimate", "lower", "upper", "p_holm")},
                    "rises": signs["rises"],
                    "falls": signs["falls"],
                    "p_sign": signs["p"].groupby(family).transform(holm),
                    "margin": margin,
                    "p_within": within["p"].groupby(family).transform(holm),
                }
            )
        )
    columns = ["treatment", "measure", "group", "family", "n", "estimate", "lower", "upper", "p_holm"]
    columns += ["rises", "falls", "p_sign", "margin", "p_within"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


_SKEWS = ("MaxSkew", "MinSkew", "NDKL")


def _family(measure: str, group: str) -> str:
    if group == "FVO" or measure.startswith((*_SKEWS, "recall disparity")):
        return "bias"
    return "overall" if group == "OA" else "group"


def _margin(measure: str, margins: Mapping[str, float]) -> float:
    return margins.get(measure, MARGIN_OF_SKEWS if measure.startswith(_SKEWS) else MARGIN_OF_SHARES)
