"""Makes again what `book/audits` holds of the census: its table, and what other people's tools answered.

`python -m fairq_book.chapters.audit.adult_kept` trains the network and has onnxruntime and torchao round it
(`make peers` installs both). With a folder that holds UCI's `adult.data` and `adult.test` behind it, the
table is made as well.
"""

from __future__ import annotations

import copy
import io
import sys
import tempfile
import warnings
from pathlib import Path

import pandas as pd
from torch import nn

from fairq_book.chapters.audit import adult
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.quantization.onnx import export_onnx

_COLUMNS = [
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country"),
    "income",
]


def table_of(folder: Path) -> pd.DataFrame:
    """The two published files as one table: names over the columns, and no full stop behind a label."""
    parts = []
    for split, above in (("train", 0), ("test", 1)):  # the second file begins with a line of its own
        path = folder / ("adult.data" if split == "train" else "adult.test")
        if not path.is_file():
            raise BadInput(f"there is no {path}; expected the folder of UCI's adult.data and adult.test.")
        own = pd.read_csv(path, names=_COLUMNS, skiprows=above, skipinitialspace=True, keep_default_na=False)
        parts.append(own.assign(income=own["income"].str.rstrip("."), split=split))
    return pd.concat(parts, ignore_index=True)


def answers_of_peers(table: pd.DataFrame, *, epochs: int = 10) -> pd.DataFrame:
    """How sure the network is of `>50K`, in full precision and as two other tools round it."""
    network = adult.train(table, epochs=epochs)
    networks = {"fp32": network, "onnxruntime": _by_onnxruntime(network), "torchao": _by_torchao(network)}
    sure = {
        name: adult.answers(one, table)[f"probability_{adult.POSITIVE}"] for name, one in networks.items()
    }
    found = pd.DataFrame(sure)
    rounded = found.round(5)
    if not ((rounded >= 0.5) == (found >= 0.5)).all(axis=None):
        raise BadInput("five digits would change an answer; expected more of them to be kept.")
    return rounded


def _by_onnxruntime(network: nn.Module) -> nn.Module:
    """Dynamic quantization of weights and inputs to 8 bits, executed by onnxruntime."""
    import onnx
    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic

    class Session(nn.Module):
        def __init__(self, path: Path) -> None:
            super().__init__()
            self.session = onnxruntime.InferenceSession(path.read_bytes())

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            (logits,) = self.session.run(None, {"images": inputs.numpy()})
            return torch.from_numpy(logits)

    with tempfile.TemporaryDirectory() as folder:
        whole, rounded = (Path(folder) / f"{name}.onnx" for name in ("fp32", "int8"))
        export_onnx(network, whole, example=torch.zeros(1, network[0].in_features))  # type: ignore[index]
        graph = onnx.load(whole)
        del graph.graph.value_info[:]  # shapes from before a weight was turned, which it takes as said
        quantize_dynamic(graph, rounded)
        return Session(rounded)


def _by_torchao(network: nn.Module) -> nn.Module:
    """The same by torchao."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own parts, when it is imported
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    rounded = copy.deepcopy(network)
    quantize_(rounded, Int8DynamicActivationInt8WeightConfig())
    return rounded


def write(table: pd.DataFrame, path: Path) -> None:
    """Leave a table as compressed CSV, whole or not at all."""
    content = io.BytesIO()
    table.to_csv(content, index=False, lineterminator="\n", compression="xz")
    write_atomically(path, content.getvalue())


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        write(table_of(Path(folder)), adult.place() / "adult.csv.xz")
        adult.card(adult.people()).to_csv(adult.place() / "adult_card.csv", index_label="")
    write(answers_of_peers(adult.people()), adult.place() / "adult_answers.csv.xz")
