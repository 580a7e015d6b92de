"""Tables of predictions: what is read, what is refused, and that text stays text."""

import os
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairq_audit import predictions, statistics
from fairq_utils.errors import BadInput


def table(**changes) -> pd.DataFrame:
    columns = {
        "id": ["1", "2", "3", "4"],
        "label": ["moth", "moth", "fly", "fly"],
        "group": ["ash", "elm", "ash", "elm"],
        "prediction": ["moth", "fly", "fly", "moth"],
    }
    columns |= changes
    return pd.DataFrame({name: values for name, values in columns.items() if values is not None})


def paired_up(before, after, groups=("group",), *, drop_unmatched=False) -> predictions.Pairs:
    first = predictions.read(before, groups, called="The first table", with_labels=True)
    second = predictions.read(after, groups, called="The second table", with_labels=False)
    return predictions.pair(first, second, groups, drop_unmatched=drop_unmatched)


def with_logits(order=("moth", "fly")) -> pd.DataFrame:
    scores = {"moth": [2.0, -1.0, 0.0, 3.0], "fly": [1.0, 0.0, 4.0, -2.0]}
    return table(prediction=None).assign(**{f"logit_{name}": scores[name] for name in order})


def test_every_image_has_one_of_five_fates():
    before = table(id=list("abcde"), label=["x"] * 5, group=["g"] * 5, prediction=list("xxyyy"))
    after = before.assign(prediction=list("xyxyz"))
    found = paired_up(before, after)
    assert found.kinds.tolist() == [
        statistics.KEPT,
        statistics.LOST,
        statistics.GAINED,
        statistics.SAME,
        statistics.CHANGED,
    ]


def test_rows_are_matched_by_id_and_not_by_place():
    after = table(prediction=["fly"] * 4)
    expected = paired_up(table(), after).kinds
    shuffled = after.iloc[[2, 0, 3, 1]]
    np.testing.assert_array_equal(paired_up(table(), shuffled).kinds, expected)
    np.testing.assert_array_equal(paired_up(table(), shuffled[["id", "prediction"]]).kinds, expected)


def test_classes_are_matched_by_name_and_not_by_place():
    same = paired_up(with_logits(), with_logits(("fly", "moth")))
    assert same.classes == ["moth", "fly"]
    assert set(same.kinds) <= {statistics.KEPT, statistics.SAME}
    np.testing.assert_array_equal(*same.scores)


def test_of_equal_scores_the_first_class_before_wins_in_both():
    tied = with_logits().assign(logit_moth=1.0, logit_fly=1.0)
    found = paired_up(tied, tied[["id", "logit_fly", "logit_moth"]])
    assert set(found.kinds) == {statistics.KEPT, statistics.SAME}
    assert (found.kinds == statistics.KEPT).tolist() == [True, True, False, False]


def test_a_prediction_that_is_said_counts_more_than_the_scores():
    stubborn = with_logits().assign(prediction=["fly"] * 4)
    found = paired_up(stubborn, with_logits())
    assert (found.kinds == statistics.LOST).tolist() == [False, False, False, True]


def test_files_and_frames_are_read_alike(tmp_path):
    numbers = table(label=[0, 0, 1, 1], prediction=[0.0, 1.0, 1.0, 0.0], group=[7, 8, 7, 8])
    numbers.astype({"prediction": int}).to_csv(tmp_path / "table.csv", index=False)
    numbers.to_parquet(tmp_path / "table.parquet")
    numbers.to_csv(tmp_path / "table.csv.gz", index=False)
    sources = [numbers, tmp_path / "table.csv", tmp_path / "table.parquet", str(tmp_path / "table.csv")]
    for source in sources:
        found = paired_up(source, sources[0])
        assert found.classes == ["0", "1"]
        assert list(found.groups["group"].categories) == ["7", "8"]
        assert found.kinds.tolist() == paired_up(numbers, numbers).kinds.tolist()


def test_text_stays_text(tmp_path):
    path = tmp_path / "odd.csv"
    odd = table(id=["01", "1", "NA", "1e3"], group=["NA", "None", "NA", "nan"])
    path.write_text("\ufeff" + odd.to_csv(index=False), encoding="utf-8")  # as spreadsheets save it
    found = paired_up(path, path)
    assert list(found.groups["group"]) == ["NA", "None", "NA", "nan"]
    assert len(found.kinds) == 4


def test_names_may_hold_newlines_commas_and_quotes(tmp_path):
    path = tmp_path / "odd.csv"
    names = ["a\nb", 'c "d", e', "<b>f</b>", "=1+1"]
    table(group=names).to_csv(path, index=False)
    assert sorted(paired_up(path, path).groups["group"].categories) == sorted(names)


def test_images_of_one_table_alone_are_left_out_when_asked():
    after = table(
        id=["2", "3", "4", "5"], label=["moth", "fly", "fly", "fly"], group=["elm", "ash", "elm", "elm"]
    )
    found = paired_up(table(), after, drop_unmatched=True)
    assert len(found.kinds) == 3
    first, second = found.left_out
    assert (first.called, first.other, first.rows, first.n) == ("The first table", "The second table", 4, 1)
    assert (first.groups["group"].tolist(), first.right.tolist()) == (["ash"], [True])
    assert (second.called, second.other, second.rows, second.n) == (
        "The second table",
        "The first table",
        4,
        1,
    )
    assert (second.groups["group"].tolist(), second.right) == (["elm"], None)
    # Of a table without groups it is not known whom its rows are of.
    assert paired_up(table(), after.drop(columns="group"), drop_unmatched=True).left_out[1].groups is None
    # Two tables of one name are two.
    one, two = (
        predictions.read(own, ["group"], called="p.csv", with_labels=True) for own in (table(), after)
    )
    assert [own.n for own in predictions.pair(one, two, ["group"], drop_unmatched=True).left_out] == [1, 1]


def spelt(label: list, before: list, after: list) -> predictions.Pairs:
    ids = {"id": range(len(label)), "group": "ash"}
    first = pd.DataFrame({**ids, "label": label, "prediction": before})
    return paired_up(first, pd.DataFrame({**ids, "prediction": after}))


@pytest.mark.parametrize(
    ("label", "stranger", "shown"),
    [
        ("2", "2.0", "predicts '2.0', which is no label, where '2' is one"),
        ("007", "7", "predicts '7', which is no label, where '007' is one"),
        ("1000", "1e3", "predicts '1e3', "),
        ("fraud", "fraud ", "predicts 'fraud ', which is no label, where 'fraud' is one"),
        ("fraud", "\tfraud", r"predicts '\tfraud', which"),
        ("fraud", "fra\xadud", r"predicts 'fra\xadud', which"),
        ("Fraud", "FRAUD", "predicts 'FRAUD', which is no label, where 'Fraud' is one"),
        ("tax fraud", "tax_fraud", "predicts 'tax_fraud', which is no label, where 'tax fraud' is one"),
        ("caf\xe9", "cafe\u0301", "predicts 'cafe\\u0301', which is no label, where 'caf\xe9' is one"),
        ("-0", "0", "predicts '0', which is no label, where '-0' is one"),
        ("f" * 300, "f" * 300 + " ", "fff…fff"),
    ],
)
@pytest.mark.parametrize("side", ["first", "second", "both"])
def test_two_spellings_of_a_class_are_refused_and_shown(label, stranger, shown, side):
    right, wrong = [label, "ok", "ok", "ok"], [stranger, "ok", "ok", "ok"]
    with pytest.raises(BadInput) as refused:
        spelt(right, right if side == "second" else wrong, right if side == "first" else wrong)
    said = str(refused.value)
    assert said.startswith(f"The {'second' if side == 'second' else 'first'} table predicts ")
    assert shown in said
    assert "expected one spelling of each class" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("labels", "stranger"),
    [
        (["1", "2"], "-1"),  # another number
        (["9007199254740993", "2"], "9007199254740992"),  # another number, though not to a float
        (["a", "A", "b"], "B"),  # letters, where case is what tells them apart
        (["cat", "dog"], "cats"),
        (["1", "2"], "nan1"),
        (["inf", "2"], "infinity"),
    ],
)
def test_what_only_looks_alike_is_another_class(labels, stranger):
    found = spelt([*labels, *labels], [*labels, *labels], [stranger, *labels[1:], *labels])
    assert (found.kinds == statistics.LOST).tolist().count(True) == 1


def test_where_scores_name_the_classes_none_is_a_spelling_of_another():
    scores = pd.DataFrame({"id": [1, 2], "label": "a", "group": "g", "logit_a": [1.0, 0.0], "logit_A": 0.5})
    assert paired_up(scores, scores).kinds.tolist() == [statistics.KEPT, statistics.SAME]


def test_whole_numbers_are_whole_whatever_the_column_holds_beside_them():
    found = spelt([1, 2, 3, 2**60], [1.0, 2.0, 1.5, 2.0**60], [1, 2, 3, 2**60])
    assert found.kinds.tolist() == [statistics.KEPT, statistics.KEPT, statistics.GAINED, statistics.KEPT]
    assert found.classes == ["1", "1.5", "1152921504606846976", "2", "3"]
    single = np.array([1.0, 2.0, 1.5], dtype=np.float32)
    assert spelt([1, 2, 3], single, [1, 2, 3]).kinds.tolist() == found.kinds.tolist()[:3]
    huge = spelt([1, 2], [1.0, 1e300], [1, 2])
    assert f"{int(1e300)}" in huge.classes


def test_answers_that_are_no_label_are_told_when_they_are_many():
    labels = ["yes", "no"] * 100
    assert spelt(labels, labels, ["perhaps", *labels[1:]]).warnings == []
    found = spelt(labels, ["perhaps", "maybe", "maybe", *labels[3:]], labels)
    assert found.warnings == [
        "The first table gives 3 of its 200 answers (1.5 %) as classes that are no label, such as 'maybe' "
        "(2 of them): they count as wrong."
    ]


def test_a_label_that_one_side_alone_predicts_beside_a_stranger_is_told_however_rare():
    labels = ["fraud", *["ok"] * 999]
    found = spelt(labels, ["1", *labels[1:]], labels)
    assert found.warnings == [
        "The first table gives 1 of its 1,000 answers (0.1 %) as classes that are no label, such as '1' "
        "(1 of them): they count as wrong. It never predicts 'fraud', which is a label and which The second "
        "table predicts: is that one class under two names?"
    ]
    # A class that died is a finding, and no question of spelling.
    assert spelt(labels, labels, ["ok"] * 1000).warnings == []


def test_a_model_that_answers_with_nothing_but_strangers_is_audited_and_told():
    found = spelt(["fraud"] * 3, ["fraud"] * 3, ["ok", "ok", "no"])
    assert set(found.kinds) == {statistics.LOST}
    assert "The second table gives 3 of its 3 answers (100.0 %) as classes" in found.warnings[0]


def test_labels_that_nothing_predicts_are_named():
    found = paired_up(table(label=["moth", "moth", "fly", "Fly"]), table(label=None))
    assert found.never_predicted == ["Fly"]


def probabilities(*rows, **changes) -> pd.DataFrame:
    columns = dict(
        zip(("probability_moth", "probability_fly"), np.array(rows or [[0.75, 0.25]] * 4).T, strict=True)
    )
    return table(prediction=None, **(columns | changes))


def two_levels() -> pd.DataFrame:
    levels = table()
    levels.columns = pd.MultiIndex.from_product([levels.columns, ["fp32"]])
    return levels


REFUSED = {
    "a column twice": (
        pd.concat([table(), table()[["prediction"]]], axis=1),
        table(),
        "The first table has 2 columns called prediction; expected each name once: rename or drop one.",
    ),
    "a score twice": (
        with_logits(),
        pd.concat([with_logits(), with_logits()[["logit_fly"]]], axis=1),
        "The second table has 2 columns called logit_fly; expected each name once",
    ),
    "columns of two levels": (
        two_levels(),
        table(),
        "The first table has columns of 2 levels, such as ('id', 'fp32'); expected one name for each",
    ),
    "text that no file can hold": (
        table(group=["ash", "elm", "ash", "\ud800"]),
        table(),
        "The first table holds '\\ud800' in group; expected text that UTF-8 can write",
    ),
    "an id that no file can hold": (
        table(id=["1", "2", "3", "\udcff"]),
        table(),
        "The first table holds '\\udcff' in id; expected text that UTF-8 can write",
    ),
    "a class that no file can hold": (
        with_logits().rename(columns={"logit_fly": "logit_\ud800"}),
        with_logits(),
        "The first table has a column called 'logit_\\ud800'; expected text that UTF-8 can write",
    ),
    "a column of lists": (
        table(),
        table(prediction=[["moth"], ["fly"], ["fly"], ["moth", "fly"]]),
        "The second table holds values of type list in prediction; expected text or numbers, one in each row",
    ),
    "a column of bytes": (
        table(),
        table(prediction=[b"moth", b"fly", b"fly", b"moth"]),
        "The second table holds values of type bytes in prediction; expected text or numbers",
    ),
    "scores that are complex": (
        with_logits().assign(logit_fly=[1j] * 4),
        with_logits(),
        "The first table has 4 entries of logit_fly that are missing, NaN, infinite or no number",
    ),
    "scores that are dates": (
        with_logits().assign(logit_fly=pd.Timestamp("2020-01-01")),
        with_logits(),
        "The first table has 4 entries of logit_fly that are missing, NaN, infinite or no number",
    ),
    "probabilities in percent": (
        probabilities([75.0, 25.0], *([[0.5, 0.5]] * 3)),
        probabilities(),
        "The first table has probabilities from 0.5 to 75 in 1 of its 4 rows",
    ),
    "logits that are called probabilities": (
        probabilities(),
        probabilities([73.0, -5.0], [0.5, 0.5], [0.5, 0.5], [2.0, -1.0]),
        "The second table has probabilities from -5 to 73 in 2 of its 4 rows; expected fractions from 0 "
        "to 1: divide percentages by 100, and call what a last layer gives logit_<class>.",
    ),
    "ids that differ": (
        table(),
        table(id=["1", "2", "8", "9"]),
        "share 2 ids; 2 stand only in the first and 2 only in the second; expected the same rows in both: "
        "--drop-unmatched",
    ),
    "no common id": (table(), table(id=list("abcd")), "share 0 ids; 4 stand only in the first and 4 only"),
    "an id twice": (table(id=["1", "2", "2", "2"]), table(), "repeats 2 ids, the first '2'; expected each"),
    "another label": (
        table(),
        table(label=["moth", "moth", "fly", "moth"]),
        "The label of 1 rows differs between The first table and The second table, such as 'fly' and "
        "'moth' for '4'",
    ),
    "another group": (table(), table(group=["ash", "elm", "elm", "elm"]), "The group of 1 rows differs"),
    "no group": (
        table(group=None),
        table(),
        "The first table has no column group; it has id, label, prediction: rename those that are meant.",
    ),
    "no prediction": (table(), table(prediction=None), "no column prediction, nor logit_<class>; it has id,"),
    "empty": (table().head(0), table(), "The first table holds no rows; expected one for each example."),
    "a prediction that is missing": (
        table(),
        table(prediction=["moth", "", None, "fly"]),
        "The second table lacks 2 of the 4 entries of prediction",
    ),
    "a group that is missing": (
        table(group=["ash", None, "ash", "elm"]),
        table(),
        "lacks 1 of the 4 entries",
    ),
    "a logit that is NaN": (
        with_logits().assign(logit_fly=[1.0, np.nan, np.inf, 2.0]),
        with_logits(),
        "has 2 entries of logit_fly that are missing, NaN, infinite or no number",
    ),
    "classes that differ": (
        with_logits(),
        with_logits().rename(columns={"logit_fly": "logit_bee"}).assign(label=None).drop(columns="label"),
        "The class 'bee' has scores in only one of The first table and The second table",
    ),
    "kinds that differ": (
        with_logits(),
        probabilities(),
        "holds a logit for each class and The second table a probability",
    ),
    "both kinds": (
        with_logits().assign(probability_moth=0.5),
        with_logits(),
        "has columns of logits and of probabilities; expected one kind of score",
    ),
    "one class": (with_logits(("moth",)), with_logits(), "has logit_moth alone; expected a column for each"),
    "a label without scores": (
        with_logits().assign(label=["moth", "bee", "fly", "fly"]),
        with_logits().drop(columns="label"),
        "'bee' is a label or a prediction, but no column of scores is named after it; expected one of: moth",
    ),
    "other names of classes": (
        table(label=["A", "A", "B", "B"]),
        table(label=None),
        "No label is ever predicted by The first table: labels are such as 'A', predictions such as 'fly'",
    ),
    "other names of classes in the first": (
        table(prediction=["0", "1", "1", "0"]),
        table(),
        "No label is ever predicted by The first table: labels are such as 'fly', predictions such as '0'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_tables_are_refused_in_one_sentence(case):
    before, after, said = REFUSED[case]
    with pytest.raises(BadInput) as refused:
        paired_up(before, after)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "gone.csv is no file; expected predictions as CSV or Parquet."),
        ("empty.csv", b"", "empty.csv is empty; expected a row of column names"),
        ("head.csv", b"id,label,group,prediction\n", "head.csv holds no rows"),
        ("photo.csv", b"\x89PNG\r\n\x1a\n\x00\x00\xff", "photo.csv cannot be read as CSV ("),
        (
            "ragged.csv",
            b"id,label,group,prediction\n1,a,b,c\n1,a,b,c,d,e\n",
            "ragged.csv cannot be read as CSV",
        ),
        (
            "comma.csv",
            b"id,label,group,prediction\n1,a,b,c,d\n2,a,b,c,d\n",
            "comma.csv cannot be read as CSV (rows hold more fields than there are names of columns)",
        ),
        ("short.csv", b"id,label,group,prediction\n1,a,b\n2,a,b,c\n", "short.csv lacks 1 of the 2 entries"),
        (
            "semicolons.csv",
            b"id;label;group;prediction\n1;a;b;c\n",
            "has one column, 'id;label;group;prediction'; expected commas between columns",
        ),
        ("broken.parquet", b"PAR1 or not", "broken.parquet cannot be read as Parquet"),
        ("words.csv", b"id,label,group,logit_a,logit_b\n1,a,g,high,2\n", "1 entries of logit_a"),
        ("hole.csv", b"id,label,group,logit_a,logit_b\n1,a,g,,2\n", "1 entries of logit_a"),
        ("broken.csv.gz", b"no gzip", "broken.csv.gz cannot be read as CSV"),
        (
            "twice.csv",
            b"id,label,group,prediction,prediction\n1,a,g,a,b\n",
            "twice.csv has 2 columns called prediction; expected each name once: rename or drop one.",
        ),
        (
            "thrice.csv",
            b'\xef\xbb\xbf\n"id",label,group,logit_a,logit_b,"logit_a",logit_a\n1,a,g,1,2,3,4\n',
            "thrice.csv has 3 columns called logit_a; expected each name once",
        ),
        (
            "blanks.csv",
            b"id, label,group,prediction\n1,a,g,a\n",
            "blanks.csv has no column label; it has id, ' label', group, prediction: rename those that are",
        ),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        predictions.read(tmp_path / name, ["group"], called="", with_labels=True)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_columns_may_have_one_name_and_what_pandas_calls_a_second_is_none(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("id,note,label,group,prediction,note,prediction.1,,\n1,n,a,g,a,n,b,,\n2,n,a,g,b,n,b,,\n")
    found = paired_up(path, path)
    assert found.kinds.tolist() == [statistics.KEPT, statistics.SAME]
    notes = pd.DataFrame([["n", "n"]] * 4, columns=["note", "note"])
    assert len(paired_up(pd.concat([table(), notes], axis=1), table()).kinds) == 4


def test_a_number_and_its_text_are_one_name_of_a_column():
    twice = table().assign(**{"1": "elm"}).rename(columns={"group": 1})
    with pytest.raises(BadInput, match="has 2 columns called 1; expected each name once"):
        paired_up(twice, table(), groups=("1",))


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    columns = [pa.array(["1", "2"])] * 5
    names = ["id", "label", "group", "prediction", "prediction"]
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "twice.parquet")
    with pytest.raises(BadInput, match=r"twice.parquet has 2 columns called prediction; expected each name"):
        paired_up(tmp_path / "twice.parquet", table())


@pytest.mark.parametrize("source", [None, 5, {"id": ["1"]}, ["1"], b"table.csv"])
def test_what_is_neither_a_file_nor_a_frame_is_refused(source):
    with pytest.raises(
        BadInput, match=r"The first table is of type .*; expected the path of a file or a data"
    ):
        paired_up(source, table())


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "folder/" * 2000, "loop", "dangling", "pipe", "."])
def test_a_place_without_a_file_is_said(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="is no file; expected predictions as CSV or Parquet") as refused:
        paired_up(name, table())
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["prediction", "group", "label"])
@pytest.mark.parametrize("form", ["csv", "parquet", "frame"])
def test_one_long_text_takes_no_more_memory_than_it_is_long(tmp_path, name, form):
    """As text of one width, ten thousand rows of it would be two hundred million characters."""
    n, long = 10_000, "z" * 20_000
    rows = pd.DataFrame({"id": range(n), "label": "yes", "group": "x", "prediction": "yes"})
    rows.loc[n - 1, [name]] = long
    source = rows if form == "frame" else tmp_path / f"rows.{form}"
    if form != "frame":
        getattr(rows, f"to_{form}")(source, index=False)
    tracemalloc.start()
    try:
        found = paired_up(source, rows.iloc[1:][["id", "prediction"]], drop_unmatched=True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.kinds) == n - 1
    assert most < 40 * 2**20


@pytest.mark.parametrize("made", ["category", "string", "pyarrow"])
def test_every_kind_of_column_that_pandas_has_is_the_same_text(made):
    plain = table(label=[0, 0, 1, 1], prediction=[0, 1, 1, 0], group=["b", "a", "b", "a"])
    other = plain.astype("category") if made == "category" else plain.convert_dtypes(
        dtype_backend="pyarrow" if made == "pyarrow" else "numpy_nullable"
    )  # fmt: skip
    found, expected = paired_up(other, other), paired_up(plain, plain)
    assert found.classes == expected.classes
    assert found.kinds.tolist() == expected.kinds.tolist()
    assert list(found.groups["group"]) == list(expected.groups["group"])
    assert list(found.groups["group"].categories) == ["a", "b"]


def test_values_that_read_alike_are_one_name():
    mixed = table(label=[1, "1", 1.0, 2], prediction=["1", 1, "1", 2.0])
    found = paired_up(mixed, mixed)
    assert found.classes == ["1", "2"]
    assert found.kinds.tolist() == [statistics.KEPT] * 4


def test_predictions_that_their_scores_contradict_are_counted():
    stubborn = with_logits().assign(prediction=["fly"] * 4)
    agreeing = with_logits().assign(prediction=["moth", "fly", "fly", "moth"])
    assert not any("highest" in one for one in paired_up(agreeing, with_logits()).warnings)
    found = paired_up(stubborn, with_logits())
    assert found.warnings == [
        "In 2 of the 4 rows of The first table (50.0 %) the prediction is not the class of the highest "
        "score, such as 'fly' where 'moth' has it: predictions count. Is there a threshold, or are "
        "the columns of scores named in another order?"
    ]
    # Of equal scores either is the highest, whichever comes first.
    tied = with_logits().assign(logit_moth=1.0, logit_fly=1.0, prediction=["moth", "fly", "moth", "fly"])
    assert not any("highest score" in one for one in paired_up(tied, tied).warnings)


def test_probabilities_that_do_not_sum_to_one_are_told():
    whole = probabilities([0.7, 0.32], [0.5, 0.46], [0.0, 1.0], [1.0, 0.0])
    assert paired_up(whole, whole.assign(probability_moth=whole["probability_moth"])).warnings == [
        "No answer changed at all, nor any score: are these two different models?"
    ]
    found = paired_up(whole, probabilities([0.9, 0.8], [0.2, 0.1], [0.0, 1.0], [1.0, 0.0]))
    assert found.warnings[-1] == (
        "In 2 of the 4 rows of The second table (50.0 %) the probabilities do not sum to 1, but to 0.30 to "
        "1.70: how sure the model was rests on them."
    )


def numbered(labels: list, n: int = 400) -> pd.DataFrame:
    values = (labels * n)[:n]
    return pd.DataFrame({"id": range(n), "label": values, "group": "ash", "prediction": values})


def test_numbers_that_look_measured_are_told():
    measured = numbered([round(0.1 * step, 1) for step in range(-30, 30)])
    (said,) = paired_up(measured, measured.assign(prediction=0.1)).warnings
    assert said == (
        "The labels look measured: 60 different numbers in 400 rows, such as '-0.1'. Each is taken for a "
        "class, and an answer is right only if it is that very number: of a regression make classes first."
    )
    many = numbered(list(range(300)))
    assert "300 different numbers in 400 rows" in paired_up(many, many).warnings[-1]
    for classes in ([0, 1, 2], list(range(100)), ["0.5", "1.5"], [f"{step}.5 mg" for step in range(60)]):
        usual = numbered(classes)
        assert not any("measured" in one for one in paired_up(usual, usual).warnings)


def test_parquet_without_pyarrow_says_what_is_missing(tmp_path, monkeypatch):
    table().to_parquet(tmp_path / "table.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(pd, "read_parquet", lambda _: (_ for _ in ()).throw(ImportError("no pyarrow")))
    with pytest.raises(BadInput, match="is Parquet, which needs pyarrow; expected it to be installed"):
        predictions.read(tmp_path / "table.parquet", ["group"], called="", with_labels=True)


def test_tables_stand_side_by_side_by_id_whatever_they_hold():
    before = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "label": "moth",
            "g": ["x", "x", "x", "y"],
            "logit_moth": 1.0,
            "logit_fly": 0.0,
        }
    )
    after = pd.DataFrame({"id": ["c", "b", "d", "e"], "prediction": ["fly", "moth", "fly", "moth"]})
    found = predictions.side_by_side(before, after, "g", rows=1)
    assert found.to_dict("index") == {
        "b": {"label": "moth", "g": "x", "before": "moth", "after": "moth"},
        "d": {"label": "moth", "g": "y", "before": "moth", "after": "fly"},
    }
