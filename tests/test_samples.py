"""Files of lm-evaluation-harness, in the form in which its version 0.4.13 writes them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_audit.auditing import audit
from fairq_audit.cli import main
from fairq_audit.samples import OTHERWISE, RIGHT, WRONG, read_samples
from fairq_utils.errors import BadInput

N = 120
TIMES = {"before": "2026-11-30T04-27-18.511968", "after": "2026-11-30T06-01-02.000123"}


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def line(doc_id: int, doc: dict, target: object, arguments: list, answers: list, **rest) -> dict:
    """A line as the harness writes it: numbers of answers are text, arguments are numbered."""
    metrics = {name: value for name, value in rest.items() if name != "filter"}
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": str(target),
        "arguments": {
            f"gen_args_{place}": {f"arg_{number}": part for number, part in enumerate(parts)}
            for place, parts in enumerate(arguments)
        },
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": rest.get("filter", "none"),
        "metrics": list(metrics),
        "doc_hash": digest(doc),
        "prompt_hash": digest(arguments[0][0]),
        "target_hash": digest(target),
        **metrics,
    }


def choice(doc_id: int, chosen: int, *, choices=("a cat", "a dog", "an elephant"), gold=None, **doc) -> dict:
    """A document with answers to choose from, of which one has the largest likelihood."""
    gold = doc_id % len(choices) if gold is None else gold
    scores = [[str(-1.5 - place + 9.0 * (place == chosen)), "False"] for place in range(len(choices))]
    text = f"What is on picture {doc_id}?"
    doc = {"question": text, "choices": list(choices), "answer": gold} | doc
    right = float(chosen == gold)
    given = [(text, f" {own}") for own in choices]
    return line(doc_id, doc, gold, given, scores, acc=right, acc_norm=right)


def free(doc_id: int, answers: dict[str, str], **doc) -> list[dict]:
    """A document that is answered by text, out of which two filters read."""
    doc = {"question": f"{doc_id} + 1?", "answer": f"#### {doc_id + 1}"} | doc
    return [
        line(
            doc_id, doc, doc["answer"], [(doc["question"], {"until": ["\n"], "do_sample": False})], [answer],
            filter=name, exact_match=float(answer == str(doc_id + 1)),
        )
        for name, answer in answers.items()
    ]  # fmt: skip


def write(folder: Path, side: str, task: str, lines: list[dict]) -> Path:
    path = folder / side / "someone__model" / f"samples_{task}_{TIMES[side]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(own, ensure_ascii=False) + "\n" for own in lines), encoding="utf-8")
    (path.parent / f"results_{TIMES[side]}.json").write_text("{}")
    return path


@pytest.fixture
def logged(tmp_path) -> Path:
    """Two tasks, before and after: one of choices, one of text with two filters."""
    for side, bad in (("before", 10), ("after", 4)):
        write(
            tmp_path, side, "pets",
            [
                choice(i, (i + (i % bad == 0)) % 3, subject=["art", "law"][i < 40], meta={"language": "dé"})
                for i in range(N)
            ],
        )  # fmt: skip
        answers = [
            {"strict-match": str(i + 1 + 5 * (i % bad == 0)), "flexible-extract": str(i + 1 + (i % 60 == 0))}
            for i in range(N)
        ]
        sums = [own for i in range(N) for own in free(i, answers[i], subject="sums", meta={"language": "en"})]
        write(tmp_path, side, "sums_hard", sums)
    return tmp_path


def right(table: pd.DataFrame) -> float:
    return float((table["label"] == table["prediction"]).mean())


def test_two_folders_of_tasks_are_laid_beside_each_other(logged):
    found = read_samples(logged / "before", logged / "after")
    first, second = found["before"], found["after"]
    assert first.groupby("task").size().to_dict() == {"pets": N, "sums_hard": N}
    assert right(first) == pytest.approx(1 - 1 / 10)
    assert right(second) == pytest.approx(1 - 1 / 4)
    assert first["id"].iloc[[0, N]].tolist() == ["pets #0", "sums_hard #0"]
    assert found["names"] == ("before", "after")
    assert found["description"] == (
        "What lm-evaluation-harness logged; right is what counts as right by acc of pets, exact_match of "
        "sums_hard (strict-match)."
    )
    assert audit(**found).record["overall"]["lost"] == (2 * N // 4) - sum(i % 20 == 0 for i in range(N)) * 2


def test_a_choice_is_what_was_chosen_and_text_is_right_or_wrong(logged):
    found = read_samples(logged / "before", logged / "after")
    for side, bad in (("before", 10), ("after", 4)):
        pets, sums = (found[side].query("task == @task") for task in ("pets", "sums_hard"))
        names = np.array(["a cat", "a dog", "an elephant"])
        assert pets["label"].tolist() == names[np.arange(N) % 3].tolist()
        chosen = [(i + (i % bad == 0)) % 3 for i in range(N)]
        assert pets["prediction"].tolist() == names[chosen].tolist()
        assert set(sums["label"]) == {RIGHT}
        assert sums["prediction"].tolist() == [WRONG if i % bad == 0 else RIGHT for i in range(N)]


def test_grades_beside_what_is_right_are_amounts(tmp_path):
    for side, bonus in (("before", 0.0), ("after", 0.25)):
        graded = [
            free(i, {"none": str(i + 1)}, subject="sums")[0]
            | {"f1": 0.5 + bonus * (i % 2), "loss": [1.0, 2], "bleu": None if i % 3 else 7.0, "seen": 1}
            for i in range(N)
        ]
        named = ["exact_match", "f1", "loss", "bleu", "seen"]
        write(tmp_path, side, "sums", [own | {"metrics": named} for own in graded])
        write(tmp_path, side, "pets", [choice(i, i % 3) for i in range(N)])
    found = read_samples(tmp_path / "before", tmp_path / "after")
    assert found["amounts"] == ["f1", "bleu"]
    rows = pd.DataFrame(audit(**found).record["groupings"][0]["amounts"]).set_index(["amount", "group"])
    assert rows["n"].to_dict() == {
        ("f1", "pets"): 0, ("f1", "sums"): N, ("bleu", "pets"): 0, ("bleu", "sums"): N // 3,
    }  # fmt: skip
    assert rows.loc[("f1", "sums"), "change"]["estimate"] == pytest.approx(0.125)
    done = CliRunner().invoke(
        main,
        ["--samples", *(str(tmp_path / side) for side in ("before", "after")), "-o", str(tmp_path / "o")],
    )
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv(tmp_path / "o" / "amounts.csv")) == 4


def test_two_wrong_answers_that_differ_are_two_answers(tmp_path):
    for side, second in (("before", "8"), ("after", "9")):
        lines = free(0, {"none": "1"}) + free(1, {"none": second}) + free(2, {"none": "7"})
        write(tmp_path, side, "sums", lines)
    found = read_samples(tmp_path / "before", tmp_path / "after")
    assert found["before"]["prediction"].tolist() == [RIGHT, WRONG, WRONG]
    assert found["after"]["prediction"].tolist() == [RIGHT, OTHERWISE, WRONG]


def test_answers_of_unlike_documents_are_letters(tmp_path):
    for side in TIMES:
        lines = [choice(0, 1, choices=("x", "y"), gold=1), choice(1, 0, choices=("u", "v", "w"), gold=0)]
        write(tmp_path, side, "mixed", lines)
    found = read_samples(tmp_path / "before", tmp_path / "after")
    assert found["before"]["label"].tolist() == ["B", "A"]


def test_what_is_right_is_said_by_the_metric_and_not_by_us(tmp_path):
    """Where the likelihoods say something else (several right answers), the metric counts."""
    for side in TIMES:
        lines = [choice(i, i % 3) for i in range(6)]
        lines[0] |= {"acc": 0.0, "acc_norm": 0.0}
        write(tmp_path, side, "pets", lines)
    found = read_samples(tmp_path / "before", tmp_path / "after")
    assert found["before"]["prediction"].tolist() == [WRONG, *[RIGHT] * 5]


@pytest.mark.parametrize(
    ("metric", "told", "share"),
    [
        ("exact_match,flexible-extract", "acc of pets, exact_match of sums_hard (flexible-extract)", 59 / 60),
        ("exact_match", "acc of pets, exact_match of sums_hard (strict-match)", 9 / 10),
        ("acc_norm", "acc_norm of pets, exact_match of sums_hard (strict-match)", 9 / 10),
    ],
)
def test_a_metric_may_be_named_with_a_filter(logged, metric, told, share):
    found = read_samples(logged / "before", logged / "after", metric=metric)
    assert told in found["description"]
    assert right(found["before"].query("task == 'sums_hard'")) == pytest.approx(share)


def test_groups_are_fields_of_the_document(logged):
    groups = ["doc.subject", "doc.meta.language", "task"]
    found = read_samples(logged / "before", logged / "after", groups=groups)
    assert found["groups"] == groups
    assert found["before"].groupby("doc.subject").size().to_dict() == {"art": 80, "law": 40, "sums": 120}
    assert set(found["after"]["doc.meta.language"]) == {"dé", "en"}


def test_older_files_that_say_neither_filter_nor_metrics_are_read(tmp_path):
    for side in TIMES:
        lines = [choice(i, i % 3) for i in range(6)]
        for own in lines:
            del own["filter"], own["metrics"]
        write(tmp_path, side, "pets", lines)
    assert right(read_samples(tmp_path / "before", tmp_path / "after")["before"]) == 1


def rewrite(folder: Path, side: str, change, task: str = "pets") -> None:
    """Change the lines of a task."""
    (path,) = (folder / side).rglob(f"samples_{task}_*")
    write(folder, side, task, change([json.loads(text) for text in path.read_text("utf-8").splitlines()]))


def with_perplexity(lines: list[dict]) -> list[dict]:
    for own in lines:
        own |= {"metrics": ["word_perplexity", "f1"], "word_perplexity": [-2.5, 4], "f1": 0.25}
    return lines


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda x: [*x[:-1], x[-1] | {"doc_id": 0}], {}, "holds the document 0 twice"),
        (
            lambda x: [x[0] | {"doc": x[0]["doc"] | {"question": "?"}}, *x[1:]],
            {},
            "document 0 is another one",
        ),
        (with_perplexity, {}, "pets has no metric that is 0 or 1 for every document; expected one, named as"),
        (with_perplexity, {"metric": "f1"}, "f1 of pets is not 0 or 1 for every document, so that nothing"),
        (
            lambda x: x,
            {"metric": "f2"},
            "metric is 'f2'; expected one of: acc, acc_norm, exact_match,strict-m",
        ),
        (lambda x: x, {"groups": ["subject"]}, "groups names subject, of which document 0 in samples_pets_"),
        (
            lambda x: x,
            {"groups": ["doc.choices"]},
            "every document: doc.question, doc.answer, doc.subject, doc",
        ),
        (lambda x: [{"id": 1}], {}, "line 1 of "),
    ],
)
def test_what_cannot_be_compared_is_refused(logged, change, options, said):
    rewrite(logged, "before", change)
    if change is with_perplexity:
        rewrite(logged, "after", change)
    with pytest.raises(BadInput) as refused:
        read_samples(logged / "before", logged / "after", **options)
    assert said in str(refused.value)


def test_files_that_are_none_are_refused(logged, tmp_path):
    (logged / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty holds no samples_<task>_<time>\.jsonl; expected what lm_eval"):
        read_samples(logged / "empty", logged / "after")
    (path,) = (logged / "before").rglob("samples_pets_*")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match="cannot be read as JSON lines; expected whole files"):
        read_samples(logged / "before", logged / "after")
    path.write_bytes(b"\n")
    with pytest.raises(BadInput, match=r"samples_pets_\S+ is empty; expected a line for each document"):
        read_samples(logged / "before", logged / "after")
    path.unlink()
    with pytest.raises(BadInput, match="before has no samples of the task pets; expected the same tasks"):
        read_samples(logged / "before", logged / "after")


def test_two_runs_of_one_task_are_refused(logged):
    (path,) = (logged / "after").rglob("samples_pets_*")
    path.with_name(path.name.replace("06-01-02", "07-01-02")).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match="holds samples of pets twice, samples_pets_2026-11-30T06-01-02"):
        read_samples(logged / "before", logged / "after")


def test_a_model_with_nothing_to_lose_is_refused(tmp_path):
    for side in TIMES:
        write(tmp_path, side, "sums", free(0, {"none": "no"}) + free(1, {"none": "idea"}))
    with pytest.raises(
        BadInput, match="is right in none of its 2 documents by exact_match of sums; expected"
    ):
        read_samples(tmp_path / "before", tmp_path / "after")


# ---------------------------------------------------------------- the command


def command(folder: Path, *arguments: object):
    given = ["--samples", folder / "before", folder / "after", "--out", folder / "out", *arguments]
    return CliRunner().invoke(main, list(map(str, given)))


def test_the_command_audits_samples_as_they_are(logged):
    done = command(logged, "--groups", "task,doc.subject", "--fail-if", "worst_group_drop > 0.02")
    assert done.exit_code == 1, done.output
    assert done.output.startswith(
        "What lm-evaluation-harness logged; right is what counts as right by acc of"
    )
    assert "Harm shown." in done.output
    record = json.loads((logged / "out" / "audit.json").read_text())
    assert [one["name"] for one in record["groupings"]][:2] == ["task", "doc.subject"]
    assert record["compared"]["before"]["name"] == "before"
    again = ["--predictions", *(str(logged / "out" / f"{name}.parquet") for name in ("before", "after"))]
    done = CliRunner().invoke(main, [*again, "--groups", "task", "--out", str(logged / "again")])
    assert done.exit_code == 0
    told = json.loads((logged / "again" / "audit.json").read_text())
    assert told["overall"] == record["overall"]


def test_without_groups_tasks_are_compared(logged):
    assert command(logged).exit_code == 0
    record = json.loads((logged / "out" / "audit.json").read_text())
    assert [group["group"] for group in record["groupings"][0]["groups"]] == ["pets", "sums_hard"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--predictions", "a.csv", "b.csv"), "--samples was given beside --predictions"),
        (("--model", "a:b"), "--samples was given beside --model"),
        (("--inputs", "a.csv"), "--samples was given beside --inputs"),
    ],
)
def test_there_is_one_source_of_answers(logged, given, said):
    done = command(logged, *given)
    assert done.exit_code == 2
    assert said in done.output


def test_a_metric_is_of_samples(tmp_path):
    done = CliRunner().invoke(main, ["--metric", "acc", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--metric needs --samples" in done.output
