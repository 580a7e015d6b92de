"""Whether a population of models changes in one direction, in none, or by next to nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from fairq_utils.errors import BadInput
from fairq_utils.intervals import holm, sign_test
from fairq_utils.metrics.arrays import tail_probability

# -- populations of models ----------------------------------------------------------------------------


def _changes(changes: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(changes).astype(float)
    if len(table) < 2 or table.shape[1] == 0:
        raise BadInput(
            f"The changes have shape {table.shape}; expected two models or more by one measure or more."
        )
    if not np.isfinite(table.to_numpy()).all():
        raise BadInput(
            "The changes hold numbers that are NaN or infinite; expected after - before of the same models "
            "and measures, which pandas lines up by name: compare the two indexes, then drop what is missing."
        )
    return table


def paired_test(
    changes: pd.DataFrame, *, families: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Student's paired t-test for each measure over a population of models, with Holm's correction.

    `changes` is after minus before: a row a model, a column a measure. A row of the result holds, for one
    measure, the number of models, the mean change with its interval, the statistic, p and p_holm: what
    remains of p when every measure of the same family was tested beside it. `families` names a family for
    each column; without it all columns are one family. The interval is that of one test, not corrected.

    The test takes the models to be independent draws; networks that share their training data are less
    than that, so treat a p near the threshold with suspicion. When nothing changed in any model p is 1,
    and when every model changed by exactly the same amount p is 0.

    >>> changes = pd.DataFrame({"gap": [0.02, 0.04, 0.03], "accuracy": [-0.01, 0.02, -0.03]})
    >>> paired_test(changes).round(3)
        measure  n  estimate  lower  upper  statistic      p  p_holm
    0       gap  3     0.030  0.005  0.055      5.196  0.035   0.070
    1  accuracy  3    -0.007 -0.069  0.056     -0.459  0.691   0.691
    """
    table = _changes(changes)
    count, columns = table.shape
    if families is not None and len(families) != columns:
        raise BadInput(f"{len(families)} families for {columns} measures; expected one family a column.")
    mean, error = table.mean(), table.sem()
    statistic = (mean / error).where(mean != 0, 0.0)
    reach = error * stats.t.ppf(1 - tail_probability(level), count - 1)
    p = pd.Series(2 * stats.t.sf(statistic.abs(), count - 1))
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": count,
            "estimate": mean.to_numpy(),
            "lower": (mean - reach).to_numpy(),
            "upper": (mean + reach).to_numpy(),
            "statistic": statistic.to_numpy(),
            "p": p,
            "p_holm": p.groupby([0] * columns if families is None else list(families)).transform(holm),
        }
    )


def sign_consistency(changes: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Whether a population of models changes in one direction: a row a measure.

    `changes` is after minus before: a row a model, a column a measure. `rises` and `falls` count the
    models that changed either way. `estimate` is the share of those that rose, with Clopper and Pearson's
    interval, `consistency` the share of the more frequent direction, and `p` that of the sign test. Few
    models agree often by chance: with five of five, p is still 0.06. When no model changed, the shares
    are NaN and p is 1.

    >>> changes = pd.DataFrame({"gap": [1, 2, 1, 3, 2, -1], "accuracy": [1, -1, 1, -1, 0, 0]})
    >>> sign_consistency(changes).round(2)
        measure  n  rises  falls  estimate  lower  upper  consistency     p
    0       gap  6      5      1      0.83   0.36   1.00         0.83  0.22
    1  accuracy  6      2      2      0.50   0.07   0.93         0.50  1.00
    """
    table = _changes(changes)
    rises, falls = (table > 0).sum().to_numpy(), (table < 0).sum().to_numpy()
    changed = rises + falls
    tail = tail_probability(level)
    with np.errstate(invalid="ignore"):  # no model changed: 0 / 0 is the NaN it should be
        share = rises / changed
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": len(table),
            "rises": rises,
            "falls": falls,
            "estimate": share,
            "lower": np.where(rises > 0, stats.beta.ppf(tail, rises, falls + 1), share),
            "upper": np.where(falls > 0, stats.beta.ppf(1 - tail, rises + 1, falls), share),
            "consistency": np.maximum(share, 1 - share),
            "p": sign_test(rises, falls),
        }
    )


def equivalence_test(
    changes: pd.DataFrame, margin: float, *, families: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Whether a population of models changes by less than the margin: two one-sided t-tests a measure.

    `changes` is after minus before: a row a model, a column a measure. That a change was not found does not
    show that there is none; this does. `p` is the larger of the p-values against "the mean change is the
    margin or more" and against "it is minus the margin or less": small, it shows that the mean lies between
    the two. `p_holm`, `families` and what the models are taken for: as for `paired_test`. `lower` and
    `upper` are the interval that goes with it, of 1 - 2 (1 - level): at a level of 0.95 one of 90 %, and it
    lies inside the margins exactly when p is below 0.05. The margin is to be named before the numbers are
    seen. When every model changed by exactly the same amount, p is 0 or 1.

    >>> changes = pd.DataFrame({"gap": [0.002, -0.001, 0.001], "accuracy": [-0.01, 0.02, -0.03]})
    >>> equivalence_test(changes, 0.01).round(3)
        measure  n  estimate  lower  upper  margin      p  p_holm
    0       gap  3     0.001 -0.002  0.003    0.01  0.004   0.009
    1  accuracy  3    -0.007 -0.049  0.036    0.01  0.420   0.420
    """
    table = _changes(changes)
    count, columns = table.shape
    if not np.isfinite(margin) or margin <= 0:
        raise BadInput(f"margin is {margin}; expected a number above 0, the least change that matters.")
    if families is not None and len(families) != columns:
        raise BadInput(f"{len(families)} families for {columns} measures; expected one family a column.")
    mean, error = table.mean(), table.sem()
    nearest = margin - mean.abs()  # of the two margins the nearer one, which has the larger p
    with np.errstate(invalid="ignore"):
        statistic = (nearest / error).where(nearest != 0, 0.0)
    reach = error * stats.t.ppf(1 - 2 * tail_probability(level), count - 1)
    p = pd.Series(stats.t.sf(statistic, count - 1))
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": count,
            "estimate": mean.to_numpy(),
            "lower": (mean - reach).to_numpy(),
            "upper": (mean + reach).to_numpy(),
            "margin": margin,
            "p": p,
            "p_holm": p.groupby([0] * columns if families is None else list(families)).transform(holm),
        }
    )
