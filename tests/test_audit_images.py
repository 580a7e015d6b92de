"""Images of the form that a model takes: one channel or three, any rectangle, channels first or last."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from torch import nn

from fairq_audit.models.base import AuditModel
from fairq_audit.models.images import form_of, load_images, parse_size
from fairq_audit.models.open import open_model
from fairq_audit.models.tables import predictions_of
from fairq_book.cli import main
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.quantization.onnx import export_onnx
from tests.test_audit_models import logits, opened

N = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs of another shape than any network takes, one of them lying on its side."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    rows = []
    for place in range(N):
        picture = Image.fromarray(draw.integers(0, 255, (60, 90, 3), dtype=np.uint8))
        exif = picture.getexif()
        if place == 1:
            exif[0x0112] = 6  # held upright
        picture.save(folder / f"{place:02}.png", exif=exif)
        rows.append(
            (f"{place:02}.png", "ab"[place % 2], "xy"[place // 2 % 2], "test" if place % 3 else "train")
        )
    pd.DataFrame(rows, columns=["file", "label", "group", "split"]).to_csv(folder / "labels.csv", index=False)
    return DataSettings(name="folder", root=str(folder))


def as_pillow_does_it(settings, height, width, mode="RGB") -> np.ndarray:
    """The test images in that form, from 0 to 1, by nothing of ours."""
    rows = []
    for place in range(N):
        if place % 3:
            with Image.open(f"{settings.root}/{place:02}.png") as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            cut = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR).convert(mode)
            rows.append(np.asarray(cut, dtype=np.float32).reshape(height, width, -1) / 255)
    return np.stack(rows)


class Linear(nn.Module):
    """Sees every pixel of an image of that form."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(int(np.prod(shape)), 2)

    def forward(self, images):
        return self.head(images.flatten(1))


def grey() -> nn.Module:
    return Linear(1, 12, 20)


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((3, 20, 40), "RGB"),
        ((1, 20, 40), "L"),
        ((20, 40, 3), "RGB"),
        ((28, 28, 1), "L"),
        ((3, 8, 8), "RGB"),
        ((3, 520, 520), "RGB"),
    ],
)
def test_a_graph_is_shown_images_of_the_form_that_it_takes(photos, tmp_path, shape, mode):
    network = Linear(*shape).eval()
    example = torch.zeros(2, *shape)
    export_onnx(network, tmp_path / "net.onnx", example=example)
    torch.export.save(torch.export.export(network, (example,)), tmp_path / "net.pt2")
    height, width = shape[1:] if shape[0] in (1, 3) else shape[:2]
    pixels = torch.from_numpy(as_pillow_does_it(photos, height, width, mode))
    wanted = pixels if shape[2] in (1, 3) else pixels.permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network((wanted - 0.4) / 0.2).numpy()
    for name in ("net.onnx", "net.pt2"):
        model = opened(tmp_path / name, mean=[0.4], std=[0.2])
        images = load_images(photos, model.image_size)
        np.testing.assert_allclose(logits(predictions_of(model, images)), expected, atol=1e-4)


def test_the_size_that_a_factory_takes_may_be_said(photos, tmp_path):
    given = ["audit", "--model", "tests.test_audit_images:grey", "--treatment", "int2", "--mean", "0.5"]
    data = ["--std", "0.5", "--dataset", "folder", "--root", str(photos.root), "--image-size", "1x12x20"]
    done = CliRunner().invoke(
        main.main, [*given, *data, "--smallest-group", "2", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert "20 test images of 12 × 20 pixels" in record["compared"]["description"]
    left = logits(pd.read_parquet(tmp_path / "out" / "before.parquet"))
    pixels = torch.from_numpy(as_pillow_does_it(photos, 12, 20, "L")).permute(0, 3, 1, 2)
    with torch.no_grad():
        np.testing.assert_allclose(left, grey()((pixels - 0.5) / 0.5).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "takes",
    [(2, 3, 16, 3), (2, 16, 16), (2, 4, 16, 16)],
)
def test_a_form_that_cannot_be_told_is_refused(takes):
    with pytest.raises(BadInput, match=r"expected images × channels × height × width, or the channels last"):
        form_of("x.onnx", {"images": takes})
    with pytest.raises(BadInput, match=r"x\.onnx takes 2 × any and 3; expected"):
        form_of("x.onnx", {"images": (2, None), "more": (3,)})


@pytest.mark.parametrize("text", ["0", "x5", "2x8x8", "5000", "-3", "1x2x3x4", "a"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="expected pixels along a side, such as 32, or height x width"):
        parse_size(text)


def test_what_is_no_folder_has_squares_alone():
    with pytest.raises(
        BadInput, match="moths is read as squares of 16 to 512; expected a folder of your own"
    ):
        load_images(DataSettings(), (20, 40))


def test_images_of_another_rectangle_are_refused(photos):
    model = AuditModel(name="mine", network=Linear(3, 20, 40), image_size=(20, 40))
    with pytest.raises(BadInput, match=r"mine takes images of 20 × 40 pixels, and these have 40 × 20"):
        predictions_of(model, load_images(photos, (40, 20)))


def test_one_channel_has_one_mean():
    with pytest.raises(BadInput, match=r"mean is \(0.1, 0.2, 0.3\) for images of one channel"):
        AuditModel(name="mine", network=Linear(1, 20, 40), channels=1, mean=(0.1, 0.2, 0.3))


def test_a_network_of_the_book_is_shown_squares_that_it_is_trained_on(photos, tmp_path):
    given = ["audit", "--model", "resnet18-16", "--treatment", "int4", "--dataset", "folder", "--root"]
    size = ["--image-size", "20x40", "--epochs", "0.1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main.main, [*given, str(photos.root), *size])
    assert done.exit_code == 2
    assert "image_size is (20, 40), and resnet18-16 is trained on squares of 32 pixels" in done.output


def test_a_processor_may_make_rectangles(tmp_path, photos):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=2)
    network = transformers.ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    size = {"height": 16, "width": 32}
    transformers.ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        tmp_path
    )
    model = open_model(str(tmp_path))
    assert model.image_size == (16, 32)
    pixels = torch.from_numpy(as_pillow_does_it(photos, 16, 32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network((pixels - 0.4) / 0.2).logits.numpy()
    np.testing.assert_allclose(
        logits(predictions_of(model, load_images(photos, (16, 32)))), expected, atol=1e-4
    )


@pytest.mark.parametrize("given", [(), ("--mean", "0.5"), ("--std", "0.5")])
def test_a_model_that_says_no_normalisation_is_not_run_before_somebody_does(tmp_path, given):
    asked = ["audit", "--model", "tests.test_audit_images:grey", "--treatment", "int4", *given]
    done = CliRunner().invoke(main.main, [*asked, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "grey does not say how its images are normalised; expected mean and std" in done.output
    assert "--mean 0.5 --std 0.25" in done.output


def test_a_model_made_in_python_is_normalised_as_in_the_book():
    model = AuditModel(name="mine", network=Linear(3, 16, 16))
    assert (model.mean, model.std) == ((0.5,), (0.25,))


def test_a_wrong_order_of_classes_is_remarked(photos, tmp_path):
    """Trained to tell two colours apart; under swapped names it is right in nothing."""
    for place in range(N):
        colour = ((200, place, 0), (0, place, 200))[place % 2]
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{place:02}.png")
    table = pd.read_csv(f"{photos.root}/labels.csv")
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = [
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--dataset",
        "folder",
        "--root",
        str(tmp_path),
        "--image-size",
        "16",
    ]
    for classes, told in (("a,b", False), ("b,a", True)):
        given = [
            "audit",
            "--model",
            "tests.test_audit_images:RedOrBlue",
            "--treatment",
            "int8",
            *data,
            "--smallest-group",
            "2",
        ]
        out = tmp_path / f"out-{told}"
        done = CliRunner().invoke(main.main, [*given, "--classes", classes, "--out", str(out)])
        assert done.exit_code == 0, done.output
        said = json.loads((out / "audit.json").read_text())["verdict"]["sentence"]
        assert (
            "Before, 0.0 % of a class are found on average over classes, no more than by guessing" in said
        ) is told


class RedOrBlue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])

    def forward(self, images):
        return self.head(images.mean((2, 3)))
