"""Every chapter runs on what its first reader brings: other widths, another network, other groups."""

import csv
import functools

import nbclient
import nbformat
import pandas as pd
import pytest
import torch
from jupyter_client.manager import KernelManager
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from fairq_book.build import notebooks
from fairq_utils.data import sources
from tests.conftest import Clone, copy_project

TINY = {
    "arch": "resnet18-16",
    "train_images": 60,
    "test_images": 60,
    "epochs": 1,
    "seeds": [0, 1],
    "treatment": "int3",
}
# Of the chapters that have such parameters: the same path at the size of a test.
SMALLER = {
    "weight_range": ["mse"],
    "grid_bit_widths": [3],
    "moth_seeds": [0, 1],
    "moth_treatments": ["int3-mse-channel"],
    "moth_train_images": 60,
    "controls": ["bf16"],
    "activation_bits": [4],
    "outliers": [4],
    "images_each": 10,
    "images_each_layer": 10,
    "seeds_by_layer": 1,
    "images_per_group": 6,
    "tol": 0.5,
    "tuning_epochs": 1,
    "loss_weights": [40],
    "samplings": ["undersampled"],
    "images": 100,
    "archs": ["patch8"],
    "training_sets": ["noisy"],
    "treatments": ["bnb-int8", "int4"],
    "top": 10,
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("chapters")
    return Clone(copy_project(folder / "clone"), folder / "store")


@pytest.fixture(scope="module")
def run(workplace):
    """Runs a chapter with these parameters, and gives its page.

    All in one kernel, where a chapter finds none of the names of the one before; for to start another and
    to import torch in it takes longer than a chapter of this size.
    """
    kernel = KernelManager()
    kernel.start_kernel(
        cwd=str(workplace.root), env=workplace.environment, extra_arguments=["--log-level=50"]
    )

    def run(slug: str, values: dict) -> str:
        notebook = load_notebook_node(str(notebooks.find(slug, workplace.root).notebook))
        notebook = parameterize_notebook(notebook, values)
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        client = nbclient.NotebookClient(notebook, km=kernel, timeout=600)
        try:
            client.execute()
        finally:
            client.kc.stop_channels()
        left = workplace.root / f"{slug}.ipynb"
        nbformat.write(notebook, left)
        return notebooks.as_page(left)

    yield run
    kernel.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder as somebody brings it, once: two labels, and groups that are not the labels."""

    @functools.cache
    def write(name: str, *, groups: tuple[str, ...], only_train: str = "") -> str:
        folder = tmp_path_factory.mktemp(name)
        drawn = sources.load("moths-equal", train_images=240, test_images=5)
        with (folder / "labels.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "group", "split"])
            for number, pixels in enumerate(drawn.images[:240]):
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
    "one width only, another network, and two groups of a folder": lambda shop: {
        "bit_widths": [4],
        "arch": "mobilenet_v3_small",
        "dataset": "folder",
        "root": shop("two", groups=("adult", "child")),
    },
    "other widths, and a group with no test image": lambda shop: {
        "bit_widths": [7, 3],
        "dataset": "folder",
        "root": shop("three", groups=("adult", "child", "infant"), only_train="infant"),
    },
}
# From where to where a page shows networks that are shipped, whatever its data are.
SHIPPED = {
    "01_disparity_baseline": [
        ("What we found", "Who is in the data"),
        ("On other moths", "The gap"),
        ("The range, taken apart", "Verdict"),
    ],
    "02_logit_variance_collapse": [
        ("What we found", "From logits to loss"),
        ("What each group loses, taken apart", "The break condition"),
    ],
    "03_zero_bin_sparsity": [
        ("What we found", "How full is the zero bin?"),
        ("The same on the twenty networks", "Layer by layer"),
    ],
    "04_hessian_landscape": [("What we found", "Whose loss?")],
    "05_fairqat_mitigation": [
        ("What we found", "The remedy, in parts"),
        ("Every remedy beside every other", "Verdict"),
    ],
}
CAPTIONED = ["06_vision_language"]  # a folder has no captions
# Of those that bring their people along: the same page for others.
OTHERS = {
    "07_language": {
        "languages": ["Greek", "Hebrew", "Thai", "Tigrinya"],
        "seed": 2,
        "steps": 30,
        "bit_widths": [3],
        "channel": True,
        "article": 30,
        "follow": 9,
    },
    "10_audit_of_a_census": {
        "groups": ["education"],
        "weight": "",
        "positive": "<=50K",
        "threshold": 0.3,
        "bits": 3,
    },
    "11_audit_of_names": {"groups": ["name"], "cluster": "", "positive": "bad", "threshold": 0.7},
}


@pytest.mark.parametrize(
    ("slug", "variant"),
    [
        *(
            (one.slug, variant)
            for one in notebooks.chapters()
            for variant in VARIANTS
            if one.slug not in CAPTIONED and one.slug not in OTHERS
        ),
        *((slug, "the moths") for slug in CAPTIONED),
        *((slug, "others") for slug in OTHERS),
    ],
)
def test_it_runs_and_says_nothing_empty(run, shop, slug, variant):
    known = notebooks.find(slug).parameters
    values = {name: value for name, value in (TINY | SMALLER).items() if name in known}
    if variant in VARIANTS:
        values |= {name: value for name, value in VARIANTS[variant](shop).items() if name in known}
    values |= OTHERS.get(slug, {})
    page = run(slug, values)
    said = page.split("Parameters", 1)[1]
    assert "Traceback" not in said
    assert ">nan" not in said
    assert " nan " not in said
    if values.get("dataset") == "folder":
        assert "adult" in said
        own = said.split("On real faces")[0]
        for begins, ends in SHIPPED.get(slug, []):
            before, _, rest = own.partition(begins)
            own = before + rest.partition(ends)[2]
        assert "Others" not in own  # nothing of the moths is left


@pytest.mark.parametrize("slug", CAPTIONED)
def test_a_folder_is_refused_where_captions_are_needed(run, shop, slug):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="expected moths or fairface") as refused:
        run(slug, {"dataset": "folder", "root": shop("two", groups=("adult", "child"))})
    assert refused.value.ename == "BadInput"


def test_the_audit_takes_two_files_trains_nothing_and_leaves_its_report(workplace):
    before = pd.DataFrame({"id": range(600), "label": "coat", "group": ["adult", "child"] * 300})
    before = before.assign(age=["old", "new", "new"] * 200, prediction="coat")
    files = [workplace.root / f"{name}.csv" for name in ("fp32", "int8")]
    before.to_csv(files[0], index=False)
    answers = ["coat", "shoe", "coat", "coat"] * 150
    before[["id"]].assign(prediction=answers).to_csv(files[1], index=False)
    kept = sorted(workplace.store.rglob("*"))
    given = (
        f"before={files[0]}",
        f"after={files[1]}",
        "groups=[group, age]",
        f"out={workplace.root / 'audit'}",
    )
    parameters = [f"--parameter={one}" for one in given]
    done = workplace.fairq("run", "08", *parameters, "--out", str(workplace.root / "out"))
    assert done.returncode == 0, done.stderr
    assert sorted(workplace.store.rglob("*")) == kept
    said = (workplace.root / "out" / "index.html").read_text()
    assert "group=child lost 50.0 points" in said
    assert "Alder" not in said.split("On real faces")[0].split("Two tables")[1]
    assert "FVO by group x age" in said
    assert "The exit code is <strong>1</strong>" in said
    left = {path.name for path in (workplace.root / "audit").iterdir()}
    assert {"report.html", "audit.json", "model_card.md", "groups.csv", "gates.csv"} <= left
