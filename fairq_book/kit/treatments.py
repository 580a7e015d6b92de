"""What a treatment is, as columns of a table: so nothing has to be read out of its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation, parse_name
from fairq_utils.treatments.treatment import Treatment

COLUMNS = (
    *("bits", "activation_bits", "grid", "ends8"),
    *("training", "weighting", "sampling", "passes", "batchnorm"),
    *("ablation", "ablated_layer"),
    *("input_range", "calibration", "aligned", "allocated", "scaled", "coarser"),
)
NONE = "none"
_PUBLISHED_WEIGHT = Treatment.parse("int4-fairqat").weight
_WIDTHS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "nf4": 4}  # of formats that have only one
_SAMPLINGS = {None: NONE, "both": "sampled", "over": "oversampled", "under": "undersampled"}
# Bits of weights and of inputs, and the grid, of what libraries do to linear layers.
_OF_LIBRARIES = {
    "bnb-int8": (8, 8, "bnb-int"),
    "bnb-nf4": (4, 32, "bnb-nf4"),
    "torch-int8": (8, 8, "torch-int"),
}


def columns(treatment: Treatment | Ablation) -> dict[str, Any]:
    """What is done to a network, a column each; an ablation has those of the treatment that it takes apart.

    `bits` of a weight and `activation_bits` of an input are 32 where nothing is rounded. `grid` is the format
    and how its values are chosen; `ends8`, whether the first and the last layer have 8 bits. `training`,
    `weighting`, `sampling` and `ablation` are the words of `fairq treatments`, or none. `batchnorm`: whether
    its statistics are taken again. `ablated_layer` is the one that is touched, or all. `input_range`: how the
    range of inputs is chosen. `calibration`: whose images ranges and statistics are taken of. `aligned`: what
    of the logits is brought back to what it was, or fitted to labels. `passes` over the images of training, 0
    where the recipe says how many; `allocated`: for whom bits are given to layers. `scaled` and `coarser`:
    how many times, 1 where not.

    >>> columns(Treatment.parse("int4-mse-fairqat"))
    {'bits': 4, 'activation_bits': 32, 'grid': 'int-mse', 'ends8': True, 'training': 'qat',
     'weighting': 'weighted', 'sampling': 'sampled', 'passes': 0, 'batchnorm': False,
     'ablation': 'none', 'ablated_layer': 'none', 'input_range': 'absmax', 'calibration': 'all',
     'aligned': 'none', 'allocated': 'none', 'scaled': 1, 'coarser': 1}
    """
    if isinstance(treatment, Ablation):
        own = {"ablation": treatment.kind, "ablated_layer": treatment.layer or "all"}
        return columns(treatment.treatment) | own
    sampling = treatment.sampling
    return {
        "bits": treatment.bits or _WIDTHS[treatment.format],
        "activation_bits": treatment.activations or 32,
        "grid": _grid(treatment),
        "ends8": treatment.ends8,
        "training": treatment.training or NONE,
        "weighting": _weighting(treatment),
        "sampling": _SAMPLINGS.get(sampling, f"sampled{sampling}"),
        "passes": treatment.passes or 0,
        "batchnorm": treatment.batchnorm,
        "ablation": treatment.only or NONE,
        "ablated_layer": "all" if treatment.only else NONE,
        "input_range": treatment.inputs,
        "calibration": _calibration(treatment),
        "aligned": _words(
            temperature=treatment.temperature,
            offsets=treatment.offsets,
            labels=treatment.fitted == "labels",
            evenlabels=treatment.fitted == "even",
        ),
        "allocated": treatment.allocated or NONE,
        "scaled": treatment.scaled or 1,
        "coarser": treatment.coarser or 1,
    }


@cache
def columns_of(name: str) -> Mapping[str, Any]:
    """The columns of the treatment of that name, where a name is all there is; None where nothing is known.

    >>> [columns_of(name)["bits"] for name in ("w4a8", "int3-random@fc.weight", "bnb-nf4", "nobody's")]
    [4, 3, 4, None]
    """
    if name in _OF_LIBRARIES:
        return columns(Treatment()) | dict(zip(COLUMNS, _OF_LIBRARIES[name], strict=False))
    try:
        return columns(parse_name(name))
    except BadInput:  # a name of something else
        return dict.fromkeys(COLUMNS)


def with_columns(table: pd.DataFrame, of: str = "treatment") -> pd.DataFrame:
    """The table with the columns of the treatments that are named in one of its own, right after that.

    >>> with_columns(pd.DataFrame({"treatment": ["fp32", "int4-qat"], "n": 9}))[["bits", "training", "n"]]
       bits training  n
    0    32     none  9
    1     4      qat  9
    """
    kept = table.drop(columns=[name for name in COLUMNS if name in table])
    names = kept[of].unique()
    known = pd.DataFrame([columns_of(name) for name in names], index=names, columns=list(COLUMNS))
    added = known.loc[kept[of]].set_axis(kept.index)
    place = list(kept).index(of) + 1
    return pd.concat([kept.iloc[:, :place], added, kept.iloc[:, place:]], axis=1)


# What `where` finds these arms by.
FAIRQAT = {"ends8": True, "training": "qat", "weighting": "weighted", "sampling": "sampled"}
PLAIN_QAT = {"training": "qat", "weighting": NONE, "sampling": NONE}
UNTRAINED = {"training": NONE, "weighting": NONE, "sampling": NONE}


def where(table: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.Series:
    """In which rows of the table all these columns have these values."""
    return (table[list(wanted)] == pd.Series(wanted)).all(axis=1)


def counterparts(table: pd.DataFrame, other: dict[str, Any]) -> dict[str, str]:
    """For each treatment of the table, the one in it that is like it but for these `other` columns.

    >>> table = with_columns(pd.DataFrame({"treatment": ["int4-ends8", "int4-fairqat", "int3-fairqat"]}))
    >>> counterparts(table, UNTRAINED)
    {'int4-ends8': 'int4-ends8', 'int4-fairqat': 'int4-ends8'}
    """
    known = {
        row["treatment"]: {name: row[name] for name in COLUMNS}
        for row in table.drop_duplicates("treatment").to_dict("records")
    }
    names = {tuple(own.values()): name for name, own in known.items()}
    wanted = {name: tuple((own | other).values()) for name, own in known.items()}
    return {name: names[key] for name, key in wanted.items() if key in names}


def _grid(treatment: Treatment) -> str:
    words = {
        "e5m2": treatment.e5m2,
        treatment.clip: treatment.clip != "absmax",
        "channel": treatment.channel,
        "affine": treatment.affine,
        "full": treatment.full,
        "lsq": treatment.learned,
    }
    return "-".join([treatment.format, *(word for word, is_said in words.items() if is_said)])


def _weighting(treatment: Treatment) -> str:
    weight = treatment.weight
    weighted = "weighted" if weight == _PUBLISHED_WEIGHT else f"weighted{weight}"
    own = {
        weighted: weight is not None,
        f"share{treatment.share}": treatment.share is not None,
        "dro": treatment.dro,
        "adjusted": treatment.adjusted,
    }
    return _words(**own)


def _calibration(treatment: Treatment) -> str:
    whose = treatment.calibration or "all"
    return f"{whose} augmented" if treatment.augmented else whose


def _words(**said: bool) -> str:
    return " ".join(word for word, is_said in said.items() if is_said) or NONE
