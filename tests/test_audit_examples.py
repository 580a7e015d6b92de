"""The worked examples of an audit: their data, other people's numbers, and the same by the command."""

import json
import re
import shlex
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from fairlearn import metrics as theirs
from sklearn.metrics import accuracy_score, precision_score, recall_score

from fairq_audit import cli
from fairq_audit.auditing import Audit, audit
from fairq_book.chapters.audit import adult, adult_kept, examples, figures, names, names_kept
from fairq_utils.errors import BadInput

GROUPS = ["race", "sex"]
HELD_TO = {"groups": GROUPS, "positive": ">50K", "threshold": 0.5, "unit": "person", "margin": 0.02}
HELD_TO |= {"fail_if": ["worst_group_drop > 0.02", "recall_drop[>50K] > 0.02"]}


@cache
def people() -> pd.DataFrame:
    return adult.people()


@cache
def tables() -> dict[str, pd.DataFrame]:
    return adult.kept(people())


@cache
def audited(name: str, weight: str | None = "fnlwgt", **settings) -> Audit:
    return audit(tables()["fp32"], tables()[name], weight=weight, **HELD_TO, **settings)


# -- the table ----------------------------------------------------------------------------------------


def test_the_table_is_the_published_one():
    table = people()
    assert len(table) == 48_842
    assert table["split"].value_counts().to_dict() == {"train": 32_561, "test": 16_281}
    assert table["sex"].value_counts().to_dict() == {"Male": 32_650, "Female": 16_192}
    assert table["race"].value_counts().to_dict() == {
        "White": 41_762,
        "Black": 4_685,
        "Asian-Pac-Islander": 1_519,
        "Amer-Indian-Eskimo": 470,
        "Other": 406,
    }
    assert table["income"].value_counts(normalize=True).round(4)[">50K"] == 0.2393
    complete = ~(table == "?").any(axis=1)
    assert table.loc[complete, "split"].value_counts().to_dict() == {"train": 30_162, "test": 15_060}
    assert table["fnlwgt"].min() > 1
    assert not table.isna().any(axis=None)


def test_the_card_counts_the_table():
    shipped = pd.read_csv(adult.place() / "adult_card.csv", index_col=0, dtype=str)
    pd.testing.assert_frame_equal(shipped, adult.card(people()), check_names=False)


def test_the_published_files_become_the_table(tmp_path):
    row = (
        "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, Cuba"
    )
    (tmp_path / "adult.data").write_text(f"{row}, <=50K\n\n")
    with pytest.raises(BadInput, match=r"adult\.test; expected the folder of UCI's"):
        adult_kept.table_of(tmp_path)
    (tmp_path / "adult.test").write_text(f"|1x3 Cross validator\n{row}, >50K.\n\n")
    table = adult_kept.table_of(tmp_path)
    assert list(table) == list(people())
    assert table[["income", "split"]].to_numpy().tolist() == [["<=50K", "train"], [">50K", "test"]]
    assert table.loc[0, "occupation"] == "?"
    first = people().iloc[0].drop(["occupation", "native-country"])
    assert table.loc[0].drop(["occupation", "native-country"]).to_dict() == first.to_dict()


# -- the networks -------------------------------------------------------------------------------------


def test_a_network_is_the_same_when_it_is_trained_again_and_sees_neither_race_nor_sex():
    table = people().iloc[::20]
    before = torch.random.get_rng_state()
    one, again = (adult.train(table, epochs=1) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    other = adult.train(table.assign(race="Other", sex="Male", fnlwgt=1), epochs=1)
    for own, same, blind in zip(one.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, same)
        assert torch.equal(own, blind)
    assert not torch.equal(own, list(adult.train(table, seed=1, epochs=1).parameters())[-1])


def test_what_is_kept_is_a_network_that_was_hardly_changed_by_two_tools():
    answers = {name: own["probability_>50K"] >= 0.5 for name, own in tables().items()}
    right = (answers["fp32"] == (tables()["fp32"]["label"] == ">50K")).mean()
    assert 0.84 < right < 0.87
    for name in ("onnxruntime", "torchao"):
        assert 0 < (answers[name] != answers["fp32"]).mean() < 0.01


def test_what_is_kept_can_be_made_again():
    pytest.importorskip("torchao", reason="torchao is not installed: make peers")
    again = adult_kept.answers_of_peers(people(), epochs=1)
    assert list(again) == list(tables())
    assert len(again) == len(tables()["fp32"])
    for name in ("onnxruntime", "torchao"):
        assert 0 < (again[name] - again["fp32"]).abs().max() < 0.1
        assert ((again[name] >= 0.5) != (again["fp32"] >= 0.5)).mean() < 0.01


# -- other people's numbers ---------------------------------------------------------------------------

RATES = {
    "recall": lambda y, p, **own: recall_score(y, p, pos_label=">50K", **own),
    "precision": lambda y, p, **own: precision_score(y, p, pos_label=">50K", zero_division=0, **own),
    "fpr": lambda y, p, **own: theirs.false_positive_rate(y == ">50K", p == ">50K", **own),
    "selection_rate": lambda y, p, **own: theirs.selection_rate(y, p, pos_label=">50K", **own),
}


def sides(name: str):
    for when, side in (("before", "fp32"), ("after", name)):
        table = tables()[side]
        yield when, table, np.where(table["probability_>50K"] >= 0.5, ">50K", "<=50K")


@pytest.mark.parametrize("weight", ["fnlwgt", None])
@pytest.mark.parametrize("columns", [["race"], ["sex"], GROUPS])
def test_fairlearn_finds_the_same_by_group(weight, columns):
    found = audited("torchao", weight)
    grouping = " x ".join(columns)
    groups = found.tables["groups"].query("grouping == @grouping").set_index("group")
    rates = found.rates[(found.rates["class"] == ">50K") & (found.rates["grouping"] == grouping)]
    compared = 0
    for when, table, said in sides("torchao"):
        own = {"sample_weight": table[weight]} if weight else {}
        frame = theirs.MetricFrame(
            metrics={"accuracy": accuracy_score} | RATES,
            y_true=table["label"],
            y_pred=said,
            sensitive_features=table[columns],
            sample_params=dict.fromkeys(["accuracy", *RATES], own),
        )
        for of, row in frame.by_group.iterrows():
            values = of if isinstance(of, tuple) else (of,)
            name = " x ".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))
            assert groups.loc[name, f"accuracy_{when}"] == pytest.approx(row["accuracy"])
            for measure in RATES:
                mine = rates[(rates["group"] == name) & (rates["measure"] == measure)]
                for value in mine[when]:
                    assert value == pytest.approx(row[measure])
                    compared += 1
    assert compared >= 2 * (len(groups) * len(RATES)) * 0.7


@pytest.mark.parametrize("weight", ["fnlwgt", None])
def test_fairlearn_finds_the_same_gaps(weight):
    found = audited("onnxruntime", weight)
    for place, columns in enumerate([["race"], ["sex"], GROUPS]):
        grouping = found.record["groupings"][place]
        (ratio,) = grouping["selection_ratios"]
        looked_at = set(found.rates[found.rates["measure"] == "selection_rate"]["group"])
        for when, table, said in sides("onnxruntime"):
            own = table[weight] if weight else None
            names = table[columns].apply(
                lambda row: " x ".join(f"{name}={value}" for name, value in row.items()), axis=1
            )
            # Of a group for which too few are taken no share is told; fairlearn knows no such rule.
            kept = names.isin(looked_at)
            their_ratio = theirs.demographic_parity_ratio(
                table["label"][kept] == ">50K",
                said[kept] == ">50K",
                sensitive_features=names[kept],
                sample_weight=None if own is None else own[kept],
            )
            assert ratio[when]["estimate"] == pytest.approx(their_ratio)
            kept = ~names.isin(grouping["odds"]["too_few"])
            their_odds = theirs.equalized_odds_difference(
                table["label"][kept] == ">50K",
                said[kept] == ">50K",
                sensitive_features=names[kept],
                sample_weight=None if own is None else own[kept],
            )
            assert grouping["odds"][when]["estimate"] == pytest.approx(their_odds)


# -- what the page says -------------------------------------------------------------------------------


def test_the_command_that_the_page_shows_gives_the_record_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {name: tables()[name] for name in ("fp32", "torchao")}
    examples.write("census", given)
    files = [f"census/{name}.csv" for name in given]
    said = examples.command(files, weight="fnlwgt", **HELD_TO).text
    _, *arguments = shlex.split(re.sub(r"```(sh)?|\\\n", "", said))
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == (0 if audited("torchao").passes() else 1), done.output
    record = json.loads((tmp_path / "audit" / "audit.json").read_text())
    wanted = json.loads(
        audit(*given.values(), names=("fp32", "torchao"), weight="fnlwgt", **HELD_TO).to_json()
    )
    for own in (record, wanted):
        del own["created"]
        del own["compared"]["before"]["file"], own["compared"]["after"]["file"]
    assert record == wanted


def test_a_class_is_told_group_by_group_with_the_numbers_of_the_audit():
    found = audited("onnxruntime")
    table = examples.class_by_group(found, ">50K").set_index("group")
    own = found.recall[found.recall["class"] == ">50K"].set_index("group")
    assert table.loc["sex=Female", "recall_before"] == own.loc["sex=Female", "before"]
    few = own.index[own["n"] < 20]
    assert table.loc[few, "recall_before"].isna().all()
    said = examples.class_said(found, ">50K").text
    assert f"In {len(few)} groups fewer than 20 people are of it" in said
    assert "in no group are surely fewer found" in said
    picture = figures.class_by_group(table.reset_index(), positive=">50K")
    assert ET.fromstring(picture.body).get("aria-label") == picture.alt
    # Of these it is not said how many are found, only how many are taken for it.
    assert re.search(rf"{re.escape(few[0])}: taken for it, % [\d.]+ before and [\d.]+ after\. ", picture.alt)
    assert f"found, % {100 * own.loc['sex=Male', 'before']:.1f} before" in picture.alt


def narrower(share: float) -> Audit:
    """As if so many who were rightly found were not any more."""
    table = tables()["fp32"]
    found = (table["label"] == ">50K") & (table["probability_>50K"] >= 0.5) & (table["sex"] == "Female")
    lost = found & (found.cumsum() <= share * found.sum())
    after = table.assign(**{"probability_>50K": table["probability_>50K"].mask(lost, 0.1)})
    after["probability_<=50K"] = 1 - after["probability_>50K"]
    return audit(table, after, weight="fnlwgt", **HELD_TO)


def test_where_a_class_is_surely_found_less_often_is_said():
    harmed, helped = narrower(0.5), narrower(0)
    assert re.search("fewer are surely found in .*sex=Female", examples.class_said(harmed, ">50K").text)
    assert examples.class_said(helped, ">50K").text.startswith("In no group are fewer of those found")
    verdicts = examples.verdicts({"half": harmed, "none": helped}).text
    assert verdicts.startswith("- **half: harm shown.** ")
    glance = examples.at_a_glance({"half": harmed, "none": helped})
    assert glance["verdict"].tolist() == [harmed.verdict, helped.verdict]
    assert glance.loc["half", "most lost by"] == harmed.record["worst_group_drop"]["group"]


def test_gaps_and_rates_beside_one_another_are_those_of_the_audits():
    both = {"people": audited("torchao"), "rows": audited("torchao", None)}
    table = examples.beside(both, "recall", ">50K")
    assert set(table.index) == {f"{name}={value}" for name in GROUPS for value in people()[name]}
    own = both["rows"].recall.query("`class` == '>50K' and group == 'sex=Male'").iloc[0]
    assert table.loc["sex=Male", "rows: before, %"] == f"{100 * own['before']:.1f}"
    assert table.loc["race=Amer-Indian-Eskimo"].eq("–").all()
    gaps = examples.gaps(both, ">50K")
    odds = both["people"].record["groupings"][1]["odds"]
    assert gaps.loc["people by sex", "odds before"] == f"{100 * odds['before']['estimate']:.1f}"


def test_at_an_equal_share_as_many_are_taken():
    plain, moved = audited("torchao"), audited("torchao", same_rate=True)
    decided = moved.record["compared"]["positive"]
    taken = [
        (tables()[name]["probability_>50K"] >= decided[when]).sum()
        for name, when in (("fp32", "before"), ("torchao", "after"))
    ]
    assert taken[0] == pytest.approx(taken[1], abs=2)  # of five digits some are equal
    said = examples.threshold_said(plain, moved).text
    assert f"it has to be {decided['after']:.3g}" in said
    assert f"The verdict is {moved.verdict}." in said


# -- names --------------------------------------------------------------------------------------------


@cache
def named() -> dict[str, pd.DataFrame]:
    return names.kept()


OF_NAMES = {"groups": ["gender", "ethnicity"], "positive": "good", "threshold": 0.5, "unit": "sentence"}


def test_every_template_has_every_name_once_and_none_of_the_lessons_has_one():
    table, taught = names.sentences(), names.lessons()
    assert not table.duplicated(["template", "name"]).any()
    assert len(table) == table["template"].nunique() * table["name"].nunique()
    assert table.groupby(["gender", "ethnicity"]).size().tolist() == [len(table) / 4] * 4
    for both in (table, taught):
        assert (both["label"] == "good").mean() == 0.5
    assert not set(table["template"]) & set(taught["template"])
    assert not any(
        re.search(rf"\b{name}\b", said) for name in table["name"].unique() for said in taught["sentence"]
    )


@pytest.mark.parametrize("columns", [["gender"], ["ethnicity"], ["gender", "ethnicity"]])
def test_fairlearn_finds_the_same_of_names(columns):
    found = audit(named()["fp32"], named()["int8"], cluster="template", **OF_NAMES)
    grouping = " x ".join(columns)
    (record,) = [own for own in found.record["groupings"] if own["name"] == grouping]
    (ratio,) = [own for own in record["selection_ratios"] if own["class"] == "good"]
    for when, side in (("before", "fp32"), ("after", "int8")):
        table = named()[side]
        own = {
            "y_true": table["label"] == "good",
            "y_pred": table["probability_good"] >= 0.5,
            "sensitive_features": table[columns].agg(" x ".join, axis=1),
        }
        assert ratio[when]["estimate"] == pytest.approx(theirs.demographic_parity_ratio(**own))
        assert record["odds"][when]["estimate"] == pytest.approx(theirs.equalized_odds_difference(**own))
        frame = theirs.MetricFrame(metrics=accuracy_score, **own)
        for group in record["groups"]:
            value = group["value"]
            assert group[f"accuracy_{when}"]["estimate"] == pytest.approx(frame.by_group[value])


def test_what_a_name_does_is_counted_over_the_same_sentences():
    table = names.swayed(named(), ["gender"])
    own = named()["int8"]
    women = own[own["gender"] == "female"]["probability_good"].mean()
    assert table.loc["thought good: female", "int8, %"] == f"{100 * women:.1f}"
    answers = own.assign(good=own["probability_good"] >= 0.5).groupby("template")["good"].mean()
    assert table.loc["decided by the name", "int8, %"] == f"{100 * answers.between(0.001, 0.999).mean():.1f}"


def test_one_classifier_answers_on_both_embeddings():
    def embed(texts):
        return np.array([[len(text) / 50, "not" in text, "help" in text] for text in texts], float)

    same = names_kept.answers(embed, embed)
    assert len(same) == len(names.sentences())
    assert same["fp32"].equals(same["int8"])
    other = names_kept.answers(embed, lambda texts: embed(texts) * 0.9)
    assert other["fp32"].equals(same["fp32"])
    assert not other["int8"].equals(same["int8"])


def test_packages_that_are_not_there_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"model\.zip; expected the folder that pip's --target made"):
        names_kept.embeddings(tmp_path)
