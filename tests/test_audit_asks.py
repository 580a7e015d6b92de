"""What the chapter on auditing asks for."""

import pytest

from fairq_book.chapters.audit import asks
from fairq_utils.errors import BadInput


def test_of_files_nothing_is_trained_and_what_describes_a_network_is_not_read():
    wanted = asks.Asks(before="fp32.csv", after="int8.csv", treatment="no such")
    assert wanted.predictions(arch="no such") == {"before": "fp32.csv", "after": "int8.csv"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"before": "fp32.csv"},
            "before is 'fp32.csv' and after is empty; expected two files of predictions",
        ),
        ({"after": "int8.csv"}, "after is 'int8.csv' and before is empty; expected two files"),
    ],
)
def test_one_file_alone_is_refused(given, said):
    with pytest.raises(BadInput, match=said):
        asks.Asks(**given).predictions()


def test_without_files_it_is_the_network_of_one_seed_before_and_after(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path))
    small = {"arch": "resnet18-16", "train_images": 40, "test_images": 60, "epochs": 1}
    found = asks.Asks(seed=3, treatment="int3").predictions(**small)
    name = "moths-resnet18-16-32px-seed3"
    assert found["names"] == (name, f"{name} int3")
    assert len(found["before"]) == len(found["after"]) == 60


def test_a_network_that_cannot_be_is_refused():
    with pytest.raises(BadInput, match="seed is -1"):
        asks.Asks(seed=-1).predictions()
