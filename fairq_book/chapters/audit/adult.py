"""The worked example on a census: its people, a network that guesses who earns much, and what it answers.

`book/audits` holds the table, which is UCI's Adult, and what one such network answered after other people's
tools rounded it. The book's data card says where both come from.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fairq_book.root import book_root

POSITIVE = ">50K"
CLASSES = ("<=50K", POSITIVE)
# What the network sees. It is told neither race nor sex, nor how many people a row stands for.
_MONEY = ["capital-gain", "capital-loss"]
_NUMBERS = ["age", "education-num", "hours-per-week", *_MONEY]
_WORDS = ["workclass", "education", "marital-status", "occupation", "relationship", "native-country"]
_WIDTH = 64
_BATCH = 512
_RATE = 0.01


def place(root: Path | None = None) -> Path:
    """The folder where the table lies, and what was answered of it."""
    return (root or book_root()) / "book" / "audits"


def people(root: Path | None = None) -> pd.DataFrame:
    """Everyone in the table: a row for each, in the order of the published files.

    >>> table = people()
    >>> len(table), table["sex"].value_counts().to_dict()
    (48842, {'Male': 32650, 'Female': 16192})
    """
    return pd.read_csv(place(root) / "adult.csv.xz", keep_default_na=False)


def features(table: pd.DataFrame) -> Tensor:
    """What the network sees of each person: standardised numbers, and a column for each word.

    Sums of money are taken by their logarithm. Mean and spread are those of the training rows. What is not
    known, `?`, is a word like any other.

    >>> features(people()).shape
    torch.Size([48842, 100])
    """
    train = table["split"] == "train"
    numbers = table[_NUMBERS].astype(float)
    numbers[_MONEY] = np.log1p(numbers[_MONEY])
    numbers = (numbers - numbers[train].mean()) / numbers[train].std()
    seen = pd.concat([numbers, pd.get_dummies(table[_WORDS])], axis=1)
    return torch.from_numpy(seen.to_numpy(np.float32))


def train(table: pd.DataFrame, *, seed: int = 0, epochs: int = 10) -> nn.Module:
    """A small network of three layers that has learned from the training rows, on one machine the same one.

    >>> table = people().iloc[::50]
    >>> network = train(table, epochs=1)
    >>> [tuple(layer.weight.shape) for layer in network if isinstance(layer, nn.Linear)][1:]
    [(64, 64), (2, 64)]
    """
    own = (table["split"] == "train").to_numpy()
    inputs = features(table)[own]
    labels = torch.from_numpy((table["income"] == POSITIVE).to_numpy(np.int64)[own])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, len(CLASSES)),
        )
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    steps = epochs * -(-len(inputs) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def dynamic_int8(network: nn.Module) -> nn.Module:
    """The network as PyTorch itself rounds it: weights once, and what goes into a layer when it comes.

    >>> _ = torch.manual_seed(0)
    >>> network, inputs = nn.Sequential(nn.Linear(8, 2)), torch.randn(4, 8)
    >>> bool(0 < (dynamic_int8(network)(inputs) - network(inputs)).abs().max() < 0.05)
    True
    """
    with warnings.catch_warnings():
        # It is to move to another package, and the version of PyTorch that this book names still has it.
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        rounded: nn.Module = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    return rounded


def answers(network: nn.Module, table: pd.DataFrame) -> pd.DataFrame:
    """What the network answers of the test rows, as an audit takes it.

    >>> table = people().iloc[::50]
    >>> answers(train(table, epochs=1), table)[["id", "label", "race", "sex"]].head(2)
          id  label   race     sex
    0  32600  <=50K  White    Male
    1  32650   >50K  White  Female
    """
    with torch.no_grad():
        sure = network(features(table)[(table["split"] == "test").to_numpy()]).softmax(1)[:, 1]
    return _to_audit(table, sure.double().numpy())


def kept(table: pd.DataFrame, root: Path | None = None) -> dict[str, pd.DataFrame]:
    """What one network answered in full precision, and rounded to 8 bits by other people's tools.

    It was trained elsewhere, by `train`, and so differs in its last digits from one that is trained here.
    `python -m fairq_book.chapters.audit.adult_kept` makes it again.

    >>> list(kept(people()))
    ['fp32', 'onnxruntime', 'torchao']
    """
    found = pd.read_csv(place(root) / "adult_answers.csv.xz")
    return {str(name): _to_audit(table, found[name].to_numpy()) for name in found}


def _to_audit(table: pd.DataFrame, sure: np.ndarray) -> pd.DataFrame:
    """The test rows with their labels, and how sure a network is of both classes."""
    test = table[table["split"] == "test"].drop(columns="split").rename(columns={"income": "label"})
    scores = {f"probability_{name}": own for name, own in zip(CLASSES, (1 - sure, sure), strict=True)}
    return test.rename_axis("id").reset_index().assign(**scores)


def counted(table: pd.DataFrame, groups: list[str], weight: str = "") -> pd.DataFrame:
    """How many people there are of each group, how many are for the test, and how many earn much.

    >>> counted(people(), ["sex"], "fnlwgt")
               people  for the test  of all, %  weighted, %  >50K, %
    sex
    Female  16,192         5,421       33.2         32.4     10.9
    Male    32,650        10,860       66.8         67.6     30.4
    """
    worth = table[weight] if weight else pd.Series(1.0, table.index)
    rows = table.assign(
        test=table["split"] == "test", much=100.0 * (table["income"] == POSITIVE), worth=worth
    )
    found = rows.groupby(groups).agg(
        people=("test", "size"), test=("test", "sum"), worth=("worth", "sum"), much=("much", "mean")
    )
    shown = pd.DataFrame(
        {
            "people": found["people"].map("{:,}".format),
            "for the test": found["test"].map("{:,}".format),
            "of all, %": (100 * found["people"] / len(table)).map("{:.1f}".format),
            "weighted, %": (100 * found["worth"] / worth.sum()).map("{:.1f}".format),
            f"{POSITIVE}, %": found["much"].map("{:.1f}".format),
        }
    )
    return shown if weight else shown.drop(columns="weighted, %")


def card(table: pd.DataFrame) -> pd.DataFrame:
    """What the data card counts: everyone, each sex and race, and of whom a column is not known.

    >>> card(people()).loc[["everyone", "race: Other", "occupation: ?"], ["people", "for the test"]]
                   people for the test
    everyone       48,842       16,281
    race: Other       406          135
    occupation: ?   2,809          966
    """
    named = [(column, value) for column in ("sex", "race") for value in table[column].value_counts().index]
    named += [(column, "?") for column in _WORDS if (table[column] == "?").any()]
    of = {"everyone": table["age"] >= 0} | {f"{name}: {own}": table[name] == own for name, own in named}
    rows = {name: counted(table.assign(own=own), ["own"], "fnlwgt").loc[True] for name, own in of.items()}
    return pd.DataFrame(rows).T
