import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from fairq_book.experiments.kept import Check, Stored

from fairq_book.cli import main
from fairq_book.experiments import kept as experiments_kept
from fairq_book.experiments import studies
from fairq_book.experiments.store import Store, default_root
from fairq_utils.errors import BadInput

TOY = {"title": "Toy", "seeds": [0, 1, 2], "bit_widths": [4], "train_images": 60, "test_images": 60}
SAME = Check(setting="toy", seed=1, treatment="int4", group="Others", n=9, kept=5, anew=5, tolerance=0)


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """A book of two settings that keeps nothing, and a store that nothing is in."""
    root = tmp_path / "book of toys"
    (root / "notebooks").mkdir(parents=True)
    (root / "book").mkdir()
    (root / "_toc.yml").touch()
    declared = {"toy": TOY, "other": TOY | {"title": "Other", "seeds": [2, 5]}}
    (root / "book" / "settings.yml").write_text(yaml.safe_dump(declared, sort_keys=False))
    monkeypatch.chdir(root)
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    return root


def fairq(*arguments: str):
    return CliRunner().invoke(main.main, arguments)


def stored(name: str = "toy") -> Stored:
    record = {"seeds": [0, 2], "git_revision": "0123456789abcdef", "date": "2026-01-02 03:04 UTC"}
    tables = {"change": pd.DataFrame({"n": [1]}), "groups": pd.DataFrame({"n": [1]})}
    return Stored(experiments_kept.find_setting(name), tables, record, Path("nowhere"))


@pytest.fixture
def prepared(monkeypatch):
    """What a sweep is asked to make, none of which is made."""
    asked = []

    def prepare(wanted, **_):
        asked.extend(wanted)
        return list(range(len(wanted)))

    monkeypatch.setattr(studies, "prepare", prepare)
    return asked


# ---------------------------------------------------------------- fairq sweep SETTING


def test_a_sweep_of_settings_takes_them_seed_by_seed(prepared):
    done = fairq("sweep", "toy", "other")
    assert done.exit_code == 0, done.output
    assert list(dict.fromkeys(want.study.seed for want in prepared)) == [0, 2, 1, 5]
    assert all(want.study.dataset.train_images == 60 for want in prepared)
    assert "toy (3 seeds), other (2 seeds)" in done.stdout
    assert f"{default_root()}; made now: nothing" in done.stdout


def test_a_sweep_of_some_seeds_takes_of_each_setting_those_that_it_has(prepared):
    done = fairq("sweep", "toy", "other", "--seeds", "0,5")
    assert done.exit_code == 0, done.output
    assert [want.study.seed for want in prepared if want.study.seed not in (0, 5)] == []
    assert "toy (1 seeds), other (1 seeds)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["toy", "--bits", "4"], "--bits was given beside toy, which book/settings.yml declares; expected"),
        # Also when it says what is the default: it would say nothing.
        (["toy", "--image-size", "32"], "--image-size was given beside toy"),
        (["toy", "--tuning-epochs", "1"], "--tuning-epochs was given beside toy"),
        (["tyo"], "setting is 'tyo'; expected one of: toy, other."),
        (["toy", "--seeds", "7-9"], "seeds is 7-9; expected some of those of toy: [0, 1, 2]."),
        (["toy", "other", "--seeds", "0"], "seeds is 0; expected some of those of other: [2, 5]."),
        (["toy", "--seeds", "few"], "seeds is 'few'; expected whole numbers, such as 0-4"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_sentence(prepared, arguments, said):
    done = fairq("sweep", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert prepared == []


def test_the_settings_of_the_book_itself_are_known_to_the_command(prepared, monkeypatch):
    monkeypatch.chdir(Path(main.__file__).parents[1])
    done = fairq("sweep", "utkface", "--bits", "4")
    assert done.exit_code == 2
    assert "--bits was given beside utkface" in done.stderr
    done = fairq("sweep", "utkface")
    assert done.exit_code == 2
    assert "expected the path of your copy of utkface" in done.stderr
    assert prepared == []


def test_a_settings_file_that_cannot_be_read_is_refused_in_one_sentence(prepared, book):
    (book / "book" / "settings.yml").write_text("toy: {title: [")
    done = fairq("sweep", "toy")
    assert done.exit_code == 2
    assert "settings.yml cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- fairq results


def test_tables_are_written_of_all_seeds_or_of_those_that_are_named(monkeypatch, book):
    kept = []

    def keep(setting, chosen, folder, **_):
        kept.append((setting.name, [study.seed for study in chosen]))
        paths = [folder / setting.name / name for name in ("a.csv", "b.csv", "provenance.json")]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 400)
        return paths

    monkeypatch.setattr(experiments_kept, "keep", keep)
    done = fairq("results", "write", "toy", "other")
    assert done.exit_code == 0, done.output
    assert kept == [("toy", [0, 1, 2]), ("other", [2, 5])]
    assert done.stdout.splitlines() == [
        "toy: 2 tables of 3 seeds, 1.2 kB",
        "other: 2 tables of 2 seeds, 1.2 kB",
    ]
    assert (book / "book" / "results" / "other" / "b.csv").exists()
    kept.clear()
    assert fairq("results", "write", "toy", "--seeds", "2").exit_code == 0
    assert kept == [("toy", [2])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["write"], "Missing argument"),
        (["write", "tyo"], "setting is 'tyo'; expected one of: toy, other."),
        (["write", "toy", "--seeds", "5"], "seeds is 5; expected some of those of toy: [0, 1, 2]."),
        (["verify", "tyo"], "setting is 'tyo'; expected one of: toy, other."),
        (["verify", "toy"], "holds no record of its tables that can be read"),
    ],
)
def test_what_cannot_be_written_or_verified_is_refused(arguments, said):
    done = fairq("results", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_the_list_says_of_every_setting_what_is_kept(monkeypatch):
    assert fairq("results", "list").stdout.splitlines() == [
        "toy        nothing is kept",
        "other      nothing is kept",
    ]
    monkeypatch.setattr(experiments_kept, "stored", lambda: {"toy": stored()})
    done = fairq("results", "list")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "toy        2 tables of 2 seeds, 0123456789, 2026-01-02 03:04 UTC",
        "other      nothing is kept",
    ]


def test_the_list_says_when_no_revision_is_known(monkeypatch):
    without = replace(stored(), provenance=stored().provenance | {"git_revision": None})
    monkeypatch.setattr(experiments_kept, "stored", lambda: {"toy": without})
    assert "toy        2 tables of 2 seeds, no revision, 2026" in fairq("results", "list").stdout


def test_a_list_of_tables_that_were_changed_is_refused(book):
    own = book / "book" / "results" / "toy"
    own.mkdir(parents=True)
    (own / "provenance.json").write_text(json.dumps({"setting": {}}))
    done = fairq("results", "list")
    assert done.exit_code == 2
    assert "holds no record of its tables that can be read" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def checked(monkeypatch):
    """How numbers are checked; each agrees, unless its draw is put among those that do not."""
    calls, wrong = [], set()

    def check(kept, *, root, draw, store):
        calls.append((kept.setting.name, root, draw, store.root))
        return replace(SAME, setting=kept.setting.name, anew=4 if draw in wrong else 5)

    monkeypatch.setattr(experiments_kept, "load", stored)
    monkeypatch.setattr(experiments_kept, "check_a_cell", check)
    return calls, wrong


def test_numbers_that_agree_are_said_and_the_command_succeeds(checked):
    calls, _ = checked
    done = fairq("results", "verify", "toy", "other", "--root", "/photos", "--cells", "2", "--draw", "7")
    assert done.exit_code == 0, done.output
    here = default_root()
    assert calls == [
        ("toy", "/photos", 7, here),
        ("toy", "/photos", 8, here),
        ("other", "/photos", 7, here),
        ("other", "/photos", 8, here),
    ]
    line = "seed 1 int4 Others: 5 of 9 kept, 5 anew; expected equal: agrees"
    assert done.stdout.splitlines() == [f"toy {line}"] * 2 + [f"other {line}"] * 2


def test_one_number_that_differs_is_an_error_and_the_rest_are_still_checked(checked):
    calls, wrong = checked
    wrong.add(1)
    done = fairq("results", "verify", "toy", "--cells", "3", "--draw", "0")
    assert done.exit_code == 1
    assert [draw for _, _, draw, _ in calls] == [0, 1, 2]
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == ["agrees", "DIFFERS", "agrees"]
    assert "what is kept is not what the images give" in done.stderr


def test_others_are_drawn_each_time_and_anew_means_in_no_store_of_yours(checked, tmp_path):
    calls, _ = checked
    assert fairq("results", "verify", "toy", "--anew").exit_code == 0
    ((_, root, draw, folder),) = calls
    assert (root, draw) == ("", None)
    assert folder != Store().root
    assert not folder.exists()  # nor is anything left of it


def test_other_images_are_refused_by_the_command(monkeypatch):
    def refuse(*_, **__):
        raise BadInput("the images have another fingerprint; expected that of the record.")

    monkeypatch.setattr(experiments_kept, "load", stored)
    monkeypatch.setattr(experiments_kept, "check_a_cell", refuse)
    done = fairq("results", "verify", "toy")
    assert done.exit_code == 2
    assert "the images have another fingerprint" in done.stderr


def test_a_check_agrees_as_far_as_it_may_be_off():
    for kept, anew, tolerance, agrees in (
        (5, 5, 0, True),
        (5, 6, 0, False),
        (5, 8, 3, True),
        (5, 9, 3, False),
    ):
        check = replace(SAME, kept=kept, anew=anew, tolerance=tolerance)
        assert check.agrees == agrees
        within = "equal" if not tolerance else "at most 3 apart"
        assert str(check) == (
            f"toy seed 1 int4 Others: {kept} of 9 kept, {anew} anew; expected {within}: "
            f"{'agrees' if agrees else 'DIFFERS'}"
        )
