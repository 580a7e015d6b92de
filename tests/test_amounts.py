"""Numbers beside the answers, against statsmodels and scipy."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from click.testing import CliRunner
from scipy import stats

from fairq_audit.amounts import differences
from fairq_audit.auditing import audit
from fairq_audit.cells import Cells
from fairq_audit.cli import main
from fairq_audit.sampling import Sampling
from fairq_utils.errors import BadInput

N = 240


def one_cell(n: int) -> Cells:
    nobody = np.zeros((1, 5), dtype=np.int64)
    return Cells("tree", ["tree"], ["ash"], ["ash"], np.zeros(n, dtype=np.intp), nobody, None, [])


def drawn(rng: np.random.Generator, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    before = rng.gamma(2, 1, n)
    return before, before + rng.normal(0.1, 0.5, n)


def ends(change: dict[str, float]) -> list[float]:
    return [change["estimate"], change["lower"], change["upper"]]


def test_limits_are_those_of_the_paired_t_test():
    values = drawn(np.random.default_rng(1))
    (found,) = differences(one_cell(N), "loss", values, Sampling(confidence=0.9))
    limits = stats.ttest_rel(values[1], values[0]).confidence_interval(0.9)
    assert ends(found["change"]) == pytest.approx([(values[1] - values[0]).mean(), *limits])
    assert (found["n"], found["changed"], found["before"]) == (N, N, pytest.approx(values[0].mean()))


@pytest.mark.parametrize("weighted", [True, False])
def test_with_clusters_and_weights_they_are_those_of_a_robust_regression(weighted):
    rng = np.random.default_rng(2)
    values, clusters = drawn(rng), np.arange(N) // 5
    values = values[0], values[1] + rng.normal(0, 0.4, N // 5)[clusters]
    weights = rng.uniform(0.5, 3, N) if weighted else np.ones(N)
    own = Sampling(weights=weights if weighted else None, clusters=clusters)
    (found,) = differences(one_cell(N), "loss", values, own)
    fitted = sm.WLS(values[1] - values[0], np.ones(N), weights).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    assert ends(found["change"]) == pytest.approx([*fitted.params, *fitted.conf_int()[0]])


def test_rows_that_lack_it_are_left_out_and_too_few_have_no_limits():
    before, after = np.array([1.0, np.nan, 2.0, 4.0]), np.array([2.0, 3.0, np.nan, 4.0])
    (found,) = differences(one_cell(4), "loss", (before, after), Sampling())
    assert (found["n"], found["changed"], found["before"], found["after"]) == (2, 1, 2.5, 3.0)
    assert found["change"]["estimate"] == 0.5
    alone = differences(one_cell(2), "loss", (before[:2], after[:2]), Sampling())[0]
    assert (alone["n"], alone["before"], alone["change"]) == (1, 1.0, None)
    assert differences(one_cell(1), "loss", (before[1:2], after[1:2]), Sampling())[0]["before"] is None


def test_all_intervals_hold_at_once():
    rng = np.random.default_rng(3)
    frame = table(rng)
    later = frame.assign(**{name: frame[name] + rng.normal(0, 1, N) for name in ("a", "b")})
    rows = audit(frame, later, amounts=["a", "b"]).record["groupings"][0]["amounts"]
    assert [(row["amount"], row["group"]) for row in rows] == [
        ("a", "ash"), ("a", "elm"), ("b", "ash"), ("b", "elm"),
    ]  # fmt: skip
    for row in rows:
        mine = frame["group"] == row["group"]
        found = stats.ttest_rel(later[row["amount"]][mine], frame[row["amount"]][mine])
        limits = found.confidence_interval(0.95 ** (1 / 4))
        assert ends(row["change"])[1:] == pytest.approx([*limits])


def table(rng: np.random.Generator) -> pd.DataFrame:
    frame = pd.DataFrame({"id": range(N), "label": ["moth", "fly"] * (N // 2)})
    frame = frame.assign(group=["ash", "ash", "elm"] * (N // 3), prediction=frame["label"])
    return frame.assign(a=rng.random(N), b=rng.random(N))


@pytest.fixture
def files(tmp_path):
    frame = table(np.random.default_rng(4))
    frame["a"] = frame["a"].where(frame.index % 7 > 0)
    frame.to_csv(tmp_path / "before.csv", index=False)
    frame.assign(a=frame["a"] + (frame["group"] == "elm")).to_csv(tmp_path / "after.csv", index=False)
    return [str(tmp_path / "before.csv"), str(tmp_path / "after.csv")], tmp_path / "out"


def test_the_command_tells_them_in_every_file(files):
    given, out = files
    done = CliRunner().invoke(main, ["--predictions", *given, "--amount", "a", "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(out / "amounts.csv").set_index("group")
    assert rows.loc["elm", ["change", "change_lower"]].tolist() == pytest.approx([1, 1])
    assert rows.loc["ash", ["change", "changed"]].tolist() == [0, 0]
    assert rows["n"].sum() == N - len(range(0, N, 7))
    record = json.loads((out / "audit.json").read_text())
    assert [row["amount"] for row in record["groupings"][0]["amounts"]] == ["a", "a"]
    page = (out / "report.html").read_text()
    assert "a: what became of it, on average" in page
    assert "1 (1 to 1)" in page
    again = CliRunner().invoke(main, ["--predictions", *given, "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert not (out / "amounts.csv").exists()


@pytest.mark.parametrize(
    ("amounts", "said"),
    [
        ("a", "amounts is 'a'; expected names of columns"),
        (["a", "a"], "each once"),
        (["c"], "has no column c"),
        (["label"], "amounts names label, which is no amount here"),
        (["group"], "amounts names group"),
    ],
)
def test_columns_that_hold_no_amount_are_refused(amounts, said):
    frame = table(np.random.default_rng(5))
    with pytest.raises(BadInput, match=said):
        audit(frame, frame, amounts=amounts)


@pytest.mark.parametrize("wrong", ["much", np.inf])
def test_what_is_no_number_is_refused(wrong):
    frame = table(np.random.default_rng(6))
    frame["a"] = frame["a"].astype(object)
    frame.loc[3, "a"] = wrong
    with pytest.raises(BadInput, match="1 entries of a that are missing, NaN, infinite or no number"):
        audit(frame, frame, amounts=["a"])
