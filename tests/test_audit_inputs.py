"""Models that take no images: columns of numbers, or text, from a table."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fairq_audit.auditing import audit
from fairq_audit.cli import main
from fairq_audit.models.inputs import read_inputs
from fairq_audit.models.open import open_model
from fairq_audit.models.tables import layers, predictions_of, to_audit
from fairq_utils.errors import BadInput
from fairq_utils.quantization.quantizers import UniformQuantizer
from tests.test_audit_models import logits

ROWS = 120
COLUMNS = ("income", "age", "owner")
LABELS = [str(place) for place in range(11)]  # 10 comes behind 9, and before 2 in the alphabet
WORDS = ["the", "loan", "was", "late", "paid", "never", "on", "time", "[PAD]", "[UNK]"]


def people() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"p{place:03}" for place in range(ROWS)]})
    table["label"] = draw.permutation(np.arange(ROWS) % len(LABELS))
    table["group"] = draw.choice(["f", "m"], ROWS)
    table["race"] = draw.choice(["one", "two"], ROWS)
    table["age"] = draw.integers(18, 80, ROWS)
    table["income"] = draw.normal(size=ROWS).round(3)
    table["owner"] = draw.choice([True, False], ROWS)
    table["letter"] = [" ".join(draw.choice(WORDS[:8], draw.integers(2, 9))) for _ in range(ROWS)]
    return table


class Columns(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.head = nn.Linear(len(COLUMNS), 16), nn.Linear(16, len(LABELS))

    def forward(self, rows):
        return self.head(self.inner(rows).relu())


class Reads(nn.Module):
    """Text, as most people write it down: ids of tokens, and which of them are there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(len(WORDS), 8), nn.Linear(8, len(LABELS))

    def forward(self, input_ids, attention_mask):
        there = attention_mask.unsqueeze(-1).to(self.words.weight.dtype)
        return self.head((self.words(input_ids) * there).sum(1) / there.sum(1))


def of_here(name: str) -> str:
    return f"{__name__}:{name}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs")
    people().to_parquet(path / "people.parquet")
    people().to_csv(path / "people.csv", index=False)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    model = tokenizers.models.WordLevel({word: place for place, word in enumerate(WORDS)}, "[UNK]")
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", model_max_length=6
    )
    made.save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def numbers() -> torch.Tensor:
    return torch.tensor(people()[list(COLUMNS)].to_numpy(dtype=np.float32))


def tokens() -> dict[str, torch.Tensor]:
    """What the tokenizer makes of the letters: at most six words, the places behind them not there."""
    ids, there = [], []
    for letter in people()["letter"]:
        own = [WORDS.index(word) for word in letter.split()][:6]
        ids.append(own + [8] * (6 - len(own)))
        there.append([1] * len(own) + [0] * (6 - len(own)))
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(there)}


def run(network: nn.Module, *given, **named) -> np.ndarray:
    with torch.no_grad():
        return network.eval()(*given, **named).numpy()


# ---------------------------------------------------------------- columns of numbers


def to_onnx(network: nn.Module, args: tuple, path, **options) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch warns of classes of its own
        torch.onnx.export(network.eval(), args, path, dynamo=True, verbose=False, **options)


@pytest.fixture(scope="module")
def columns(folder):
    """One network through every entrance that takes columns."""
    (folder / "columns").mkdir()
    rows = {0: torch.export.Dim("rows")}
    example, place = (torch.zeros(2, len(COLUMNS)),), folder / "columns"
    torch.export.save(
        torch.export.export(Columns().eval(), example, dynamic_shapes=(rows,)), place / "net.pt2"
    )
    to_onnx(Columns(), example, place / "net.onnx", dynamic_shapes=(rows,))
    return [
        open_model(text, takes_images=False)
        for text in (
            of_here("Columns"),
            str(folder / "columns" / "net.pt2"),
            str(folder / "columns" / "net.onnx"),
        )
    ]


@pytest.mark.parametrize("file", ["people.parquet", "people.csv"])
def test_columns_reach_a_model_in_its_order(folder, columns, file):
    inputs = read_inputs(folder / file, COLUMNS, groups=["group", "race"])
    assert inputs.label_names == tuple(LABELS)
    wanted = run(Columns(), numbers())
    for model in columns:
        table = predictions_of(model, inputs, batch_size=7)
        np.testing.assert_allclose(logits(table), wanted, atol=1e-5)
        given = people()
        assert table["id"].tolist() == given["id"].tolist()
        assert table["label"].tolist() == given["label"].astype(str).tolist()
        assert table["race"].tolist() == given["race"].tolist()
        assert table["prediction"].tolist() == [LABELS[place] for place in wanted.argmax(1)]


def test_weights_are_rounded_and_all_else_is_left(folder, columns):
    inputs = read_inputs(folder / "people.csv", COLUMNS)
    rounded = Columns()
    with torch.no_grad():
        for layer in (rounded.inner, rounded.head):
            layer.weight.copy_(UniformQuantizer(3)(layer.weight))
    wanted = run(rounded, numbers())
    for model in columns:
        after = model.treated("int3", inputs)
        np.testing.assert_allclose(logits(predictions_of(after, inputs)), wanted, atol=1e-5)
        assert layers(model, after)["layer"].tolist() == ["inner.weight", "head.weight"]
        for word in ("w4a8", "int4-bn", "int4-temperature"):
            with pytest.raises(BadInput, match="changes more than weights, or looks at images"):
                model.treated(word, inputs)


def command(folder, *arguments: object):
    out = folder / "out"
    done = CliRunner().invoke(main, [*map(str, arguments), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads((out / "audit.json").read_text())


def test_the_command_audits_columns_as_python_does(folder, tmp_path, columns):
    fed = ("--inputs", folder / "people.parquet", "--columns", "income, age, owner", "--groups", "group,race")
    record = command(tmp_path, "--model", of_here("Columns"), "--treatment", "int2", *fed)
    said = "120 rows of people.parquet (columns income, age, owner; SHA-256 "
    assert said in record["compared"]["description"]
    assert "mean" not in record["compared"]["description"]
    assert [one["name"] for one in record["groupings"]] == ["group", "race", "group x race"]
    inputs = read_inputs(folder / "people.parquet", COLUMNS, groups=["group", "race"])
    here = audit(**to_audit(columns[0], columns[0].treated("int2", inputs), inputs), groups=["group", "race"])
    assert here.record["overall"] == record["overall"]
    left = [tmp_path / "out" / f"{name}.parquet" for name in ("before", "after")]
    again = command(tmp_path / "again", "--predictions", *left, "--groups", "group,race")
    assert again["overall"] == record["overall"]


# ---------------------------------------------------------------- text


def test_text_reaches_a_model_through_its_tokenizer(folder, tokenizer, tmp_path):
    given = tokens()
    any_text = {0: torch.export.Dim("rows"), 1: torch.export.Dim("words", max=64)}
    shapes = {"input_ids": any_text, "attention_mask": any_text}
    torch.export.save(
        torch.export.export(Reads().eval(), (), given, dynamic_shapes=shapes), tmp_path / "named.pt2"
    )
    to_onnx(Reads(), (), tmp_path / "net.onnx", kwargs=given, dynamic_shapes=shapes)
    to_onnx(Reads(), (), tmp_path / "fixed.onnx", kwargs=given)
    inputs = read_inputs(folder / "people.csv", ["letter"], tokenizer=tokenizer)
    wanted = run(Reads(), **given)
    for text in (
        of_here("Reads"),
        *(str(tmp_path / name) for name in ("named.pt2", "net.onnx", "fixed.onnx")),
    ):
        model = open_model(text, takes_images=False)
        np.testing.assert_allclose(
            logits(predictions_of(model, inputs, batch_size=50)), wanted, atol=1e-5, err_msg=text
        )


def test_the_command_audits_a_classifier_of_text_from_a_folder(folder, tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8, num_labels=len(LABELS),
        id2label=dict(enumerate(reversed(LABELS))),
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path / "bert")
    fed = ("--inputs", folder / "people.parquet", "--columns", "letter", "--tokenizer", tokenizer)
    record = command(tmp_path, "--model", tmp_path / "bert", "--treatment", "int4-channel", *fed)
    assert record["compared"]["n"] == ROWS
    assert "the same at int4-channel, on 120 rows of people.parquet" in record["compared"]["description"]
    with torch.no_grad():
        wanted = network(**tokens()).logits.flip(1).numpy()
    left = pd.read_parquet(tmp_path / "out" / "before.parquet")
    np.testing.assert_allclose(logits(left), wanted, atol=1e-5)


# ---------------------------------------------------------------- what is said in one sentence


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        (lambda t: t, ["income", "height"], "has no column height; expected id, label, columns of"),
        (lambda t: t, [], "no columns are named that the model is fed with; expected some"),
        (lambda t: t, ["letter"], "has 120 entries of letter that are missing or no finite number"),
        (lambda t: t.assign(age=t["age"].where(t["age"] > 20)), ["age"], "entries of age that are missing"),
        (lambda t: t.assign(id=1), ["age"], "people.csv repeats the id '1'; expected each once"),
        (lambda t: t.assign(group=[""] + ["f"] * 119), ["age"], "lacks 1 of the 120 entries of group"),
        (lambda t: t[:0], ["age"], "people.csv holds no rows"),
        (lambda t: t.drop(columns="label"), ["age"], "people.csv has no column label"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(tmp_path, change, named, said):
    change(people()).to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(BadInput) as refused:
        read_inputs(tmp_path / "people.csv", named)
    assert said in str(refused.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"x\.csv is no file; expected inputs as CSV or Parquet"):
        read_inputs(tmp_path / "x.csv", ["age"])
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"x\.parquet cannot be read \(ArrowInvalid"):
        read_inputs(tmp_path / "x.parquet", ["age"])


def test_a_tokenizer_that_is_none_is_refused(folder, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    for place, said in ((tmp_path / "absent", "is no folder"), (tmp_path, "cannot be opened as a tokenizer")):
        with pytest.raises(BadInput, match=said):
            read_inputs(folder / "people.csv", ["letter"], tokenizer=place)
    with pytest.raises(BadInput, match="columns names letter, age beside a tokenizer; expected one column"):
        read_inputs(folder / "people.csv", ["letter", "age"], tokenizer=tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--columns", "age"), "--columns was given without --inputs"),
        (("--tokenizer", "t"), "--tokenizer was given without --inputs"),
        (("--inputs", "x.csv", "--mean", "0.5"), "--mean was given beside --inputs"),
        (("--inputs", "x.csv", "--dataset", "folder"), "--dataset was given beside --inputs"),
        (("--inputs", "x.csv"), "no columns are named that the model is fed with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, given, said):
    asked = ["--model", of_here("Columns"), "--treatment", "int4", *given, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert said in done.output


def test_the_file_is_named_as_the_command_names_it(folder, tmp_path):
    asked = ["--predictions", "a.csv", "b.csv", "--columns", "age", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert "--columns was given beside --predictions" in done.output


def test_a_model_of_other_columns_is_refused_in_a_sentence(folder):
    inputs = read_inputs(folder / "people.csv", ["age"])
    with pytest.raises(
        BadInput, match=r"Columns raised RuntimeError: .* on rows of 1 columns; expected a model"
    ):
        predictions_of(open_model(of_here("Columns"), takes_images=False), inputs)
