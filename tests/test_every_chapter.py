"""Every chapter runs on what its first reader brings: other widths, another network, other groups."""

import csv

import pytest
import torch
from PIL import Image

from fairq_utils import chapters, data
from tests.conftest import Clone, copy_project

TINY = {"train_images": 60, "test_images": 60, "epochs": 1, "seeds": [0, 1]}
# Of the chapters that have such parameters: the same path at the size of a test.
SMALLER = {
    "grids": ["mse"],
    "grid_bit_widths": [3],
    "moth_seeds": [0, 1],
    "moth_bit_widths": [3],
    "moth_train_images": 60,
    "controls": ["bf16"],
    "images_each": 10,
    "images_each_layer": 10,
    "seeds_by_layer": 2,
    "images_per_group": 6,
    "tuning_epochs": 1,
    "loss_weights": [40],
    "samplings": ["undersampled"],
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("chapters")
    return Clone(copy_project(folder / "clone"), folder / "store")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder as somebody brings it: two labels, and groups that are not the labels."""

    def write(name: str, *, groups: tuple[str, ...], only_train: str = "") -> str:
        folder = tmp_path_factory.mktemp(name)
        drawn = data.load("moths-equal", train_images=120, test_images=5)
        with (folder / "labels.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "group", "split"])
            for number, pixels in enumerate(drawn.images[:120]):
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
                group = groups[number % len(groups)]
                split = "train" if group == only_train or number % 4 else "test"
                label = ("coat", "shoe")[
                    int(torch.randint(2, (), generator=torch.Generator().manual_seed(number)))
                ]
                table.writerow([f"{number}.png", label, group, split])
        return str(folder)

    return write


VARIANTS = {
    "one width only, and another network": lambda shop: {"bit_widths": [4], "arch": "mobilenet_v3_small"},
    "other widths, and two groups of a folder": lambda shop: {
        "bit_widths": [7, 3],
        "dataset": "folder",
        "root": shop("two", groups=("adult", "child")),
    },
    "a group with no test image": lambda shop: {
        "bit_widths": [3],
        "dataset": "folder",
        "root": shop("three", groups=("adult", "child", "infant"), only_train="infant"),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("slug", [chapter.slug for chapter in chapters.chapters()])
def test_it_runs_and_says_nothing_empty(workplace, shop, slug, variant):
    known = chapters.find(slug).parameters
    values = {name: value for name, value in (TINY | SMALLER).items() if name in known}
    values |= VARIANTS[variant](shop)
    given = [f"--parameter={name}={value}" for name, value in values.items()]
    done = workplace.fairq("run", slug, *given, "--out", str(workplace.root / "out"))
    assert done.returncode == 0, done.stderr
    page = (workplace.root / "out" / "index.html").read_text()
    said = page.split("Parameters", 1)[1]
    assert "Traceback" not in said
    assert ">nan" not in said
    assert " nan " not in said
    if values.get("dataset") == "folder":
        assert "adult" in said
        assert (
            "Others" not in said.split("On real faces")[0].split("Size or difficulty")[0]
        )  # nothing of the moths is left
