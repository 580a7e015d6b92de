"""A model through every entrance: the same numbers, and one sentence for what cannot be audited."""

import copy
import io
import json
import os
import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fairq_audit.models.base import AuditModel
from fairq_audit.models.open import open_model
from fairq_audit.models.tables import layers, predictions_of
from fairq_book.chapters.audit import models as audit_models
from fairq_book.cli import main
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Study, predictions
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import bake, describe, quantize_model, zero_share
from fairq_utils.quantization.onnx import export_onnx
from fairq_utils.quantization.packing import save_packed
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.training.loop import Recipe, to_input
from fairq_utils.treatments.treatment import FP32, Treatment

SETTINGS = DataSettings(train_images=40, test_images=20, image_size=16)
NAMES = ("Alder", "Bracken", "Clover", "Damson", "Others")


@pytest.fixture(scope="module")
def images():
    return SETTINGS.load()


# ---------------------------------------------------------------- what factories here return


class Tiny(nn.Module):
    """Every kind of layer that a graph may read a weight for: a convolution and two linear ones."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.inner = nn.Linear(512, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.inner(self.drop(self.norm(self.conv(images)).relu().flatten(1))).relu())


def tiny(classes: int = 5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Tiny(classes)


class Returning(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.network, self.change = tiny(), change

    def forward(self, images: Tensor):
        return self.change(self.network(images))


def tuples() -> nn.Module:
    return Returning(lambda logits: (logits, logits))


def dicts() -> nn.Module:
    return Returning(lambda logits: {"logits": logits})


def wrapped() -> nn.Module:
    return Returning(lambda logits: SimpleNamespace(logits=logits))


def maps() -> nn.Module:
    return Returning(lambda logits: logits[..., None, None])


def nans() -> nn.Module:
    return Returning(lambda logits: logits.masked_fill(logits > 0, torch.nan))


def broken() -> nn.Module:
    raise RuntimeError("no such\nthing")


def number() -> int:
    return 5


def of_here(name: str) -> str:
    return f"{__name__}:{name}"


def opened(text: object, **options) -> AuditModel:
    """A model of the tests here: they take images as the book's own networks do."""
    return open_model(str(text), **{"mean": [0.5], "std": [0.25]} | options)


# ---------------------------------------------------------------- every entrance, the same numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Neither its weights nor its batch norm are those that it is built with."""
    network = tiny(seed=1)
    with torch.no_grad():
        for norm in (network.norm.weight, network.norm.running_mean, network.norm.running_var):
            norm.add_(torch.rand_like(norm))
    return network.eval()


def decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():  # torch warns of a class of its own
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        return program.run_decompositions()


@pytest.fixture(scope="module")
def doors(trained, folder) -> dict[str, AuditModel]:
    """One network through every entrance that takes any network."""
    safetensors.torch.save_file(trained.state_dict(), folder / "w.safetensors")
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, folder / "w.pt")
    example = torch.rand(2, 3, 16, 16)
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(trained, (example,), dynamic_shapes=(batch,)), folder / "any.pt2")
    torch.export.save(decomposed(torch.export.export(trained, (example,))), folder / "by2.pt2")
    export_onnx(trained, folder / "any.onnx", example=example)
    factory = of_here("tiny")
    return {
        "factory": opened(factory, weights=folder / "w.safetensors"),
        "factory, .pt": opened(factory, weights=folder / "w.pt", arguments={"seed": 7}),
        "program": opened(folder / "any.pt2"),
        "program of two images, decomposed": opened(folder / "by2.pt2"),
        "onnx": opened(folder / "any.onnx"),
    }


def expected(network: nn.Module, images) -> np.ndarray:
    with torch.no_grad():
        return network(to_input(images.images[images.is_test])).numpy()


def logits(table: pd.DataFrame) -> np.ndarray:
    return table.filter(like="logit_").to_numpy()


@pytest.mark.parametrize("treatment", ["fp32", "int4", "int3-mse-channel-ends8", "nf4"])
def test_one_network_says_the_same_through_every_entrance(doors, trained, images, treatment):
    treatment = Treatment.parse(treatment)
    for name, door in doors.items():
        network = folded(trained) if name == "onnx" else trained
        wanted = expected(treatment.apply(network, images), images)
        table = predictions_of(door.treated(treatment, images), images, batch_size=7)
        np.testing.assert_allclose(logits(table), wanted, atol=1e-4, err_msg=name)
        assert table["prediction"].tolist() == [NAMES[place] for place in wanted.argmax(1)], name
        assert list(table.columns) == ["id", "label", "group", "prediction", *(f"logit_{n}" for n in NAMES)]


def folded(network: nn.Module) -> nn.Module:
    """The exporter to ONNX folds the batch norm into the convolution, so other weights are rounded."""
    network = copy.deepcopy(network)
    network.conv = fuse_conv_bn_eval(network.conv, network.norm)
    network.norm = nn.Identity()
    return network


def test_a_row_says_which_image_it_is_of(doors, images):
    table = predictions_of(doors["factory"], images)
    places = images.is_test.nonzero()[:, 0]
    assert table["id"].tolist() == places.tolist()
    assert table["label"].tolist() == [images.label_names[label] for label in images.labels[places]]
    assert table["group"].tolist() == [images.group_names[group] for group in images.groups[places]]


def test_the_layers_say_how_many_weights_became_zero(doors, trained, images):
    emptied = Treatment.parse("int2-channel")  # so a folded batch norm moves no weight into the zero bin
    wanted = zero_share(emptied.apply(trained, images)).drop("total")
    for name, door in doors.items():
        table = layers(door, door.treated(emptied, images))
        assert table["layer"].tolist() == ["conv.weight", "inner.weight", "head.weight"], name
        assert table["weights"].tolist() == [216, 8192, 80], name
        assert (table["zero_before"] == 0).all(), name
        np.testing.assert_allclose(table["zero_after"], wanted[table["layer"]], err_msg=name)
        assert table["zero_after"].min() > 0.1, name


def test_a_treatment_leaves_the_model_as_it_is(doors, images):
    for door in doors.values():
        before = predictions_of(door, images)
        after = predictions_of(door.treated("int2", images), images)
        assert not np.allclose(logits(before), logits(after))
        pd.testing.assert_frame_equal(predictions_of(door, images), before)


def test_a_stored_network_is_the_one_of_the_book(images, tmp_path):
    study = Study(dataset=SETTINGS, arch="mobilenet_v3_small", recipe=Recipe(epochs=1, batch_size=16))
    store = Store(tmp_path)
    model = audit_models.from_study(study, store=store)
    assert (model.image_size, model.class_names) == (16, NAMES)
    treatments = [FP32, Treatment(4), Treatment.parse("w8a8")]
    for treatment, known in zip(treatments, predictions([study], treatments, store=store), strict=True):
        table = predictions_of(model.treated(treatment, images), images)
        np.testing.assert_allclose(logits(table), known.logits.numpy(), atol=1e-4)


def test_an_architecture_of_the_book_names_its_seed_and_data(images, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path))
    own = audit_models.own_models()
    model = open_model("mobilenet_v3_small-seed2", data=SETTINGS, epochs=0.5, own=own)
    assert model.name == "moths-mobilenet_v3_small-16px-seed2"
    assert len(predictions_of(model, images)) == 20


# ---------------------------------------------------------------- Hugging Face's folders


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A tiny ViT as transformers saves it, with names in an order of its own."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = tmp_path_factory.mktemp("hub") / "vit"
    torch.manual_seed(3)
    names = dict(enumerate(reversed(NAMES)))
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        id2label=names,
        label2id={name: place for place, name in names.items()},
    )
    network = transformers.ViTForImageClassification(config)
    nn.init.normal_(network.classifier.weight)
    network.save_pretrained(path)
    processor = {
        "size": {"height": 16, "width": 16},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    }
    transformers.ViTImageProcessor(**processor).save_pretrained(path)
    return path


def by_its_own_processor(saved: Path, network: nn.Module, images) -> np.ndarray:
    """What transformers itself makes of the test images, in the order of the data's labels."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    processor = transformers.AutoImageProcessor.from_pretrained(saved, local_files_only=True)
    shown = images.images[images.is_test].permute(0, 2, 3, 1).numpy()
    pixels = processor(images=list(shown), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return network(pixel_values=pixels).logits.flip(1).numpy()


def test_a_folder_says_size_normalisation_and_class_names(saved, images):
    model = open_model(str(saved))
    assert (model.image_size, model.mean, model.std) == (16, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert model.class_names == tuple(reversed(NAMES))
    wanted = by_its_own_processor(saved, model.network, images)
    table = predictions_of(model, images)
    np.testing.assert_allclose(logits(table), wanted, atol=1e-4)
    assert table["prediction"].tolist() == [NAMES[place] for place in wanted.argmax(1)]


def with_processor(saved: Path, target: Path, name: str, **settings) -> str:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = copy_of(saved, target)
    getattr(transformers, f"{name}ImageProcessor")(**settings).save_pretrained(path)
    return str(path)


def test_a_processor_is_asked_what_it_does_not_what_it_says(saved, tmp_path):
    """EfficientNet's divides a second time; ConvNext's and CLIP's cut more than they keep."""
    size = {"height": 16, "width": 16}
    options = {"size": size, "do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    twice = open_model(with_processor(saved, tmp_path / "twice", "EfficientNet", include_top=True, **options))
    assert (twice.image_size, twice.mean, twice.std) == (16, (0.5,) * 3, (0.25,) * 3)
    cut = open_model(with_processor(saved, tmp_path / "cut", "CLIP", crop_size=size))
    assert cut.image_size == 16
    raw = open_model(with_processor(saved, tmp_path / "raw", "ViT", size=size, do_normalize=False))
    assert (raw.mean, raw.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_processor_that_swaps_colours_is_refused(saved, tmp_path):
    path = with_processor(saved, tmp_path / "swaps", "MobileViT", do_flip_channel_order=True)
    assert "does more to a pixel than to subtract and divide" in refusal(path)


def test_a_folder_is_quantized_as_any_network(saved, images):
    model = open_model(str(saved))
    rounded = bake(quantize_model(model.network, UniformQuantizer(4, axis=0)))
    after = model.treated("int4-channel", images)
    wanted = by_its_own_processor(saved, rounded, images)
    np.testing.assert_allclose(logits(predictions_of(after, images)), wanted, atol=1e-4)
    assert set(layers(model, after)["layer"]) == set(describe(rounded)["layer"])
    inputs_too = predictions_of(model.treated("w8a8", images), images)
    assert 0 < np.abs(logits(inputs_too) - logits(predictions_of(model, images))).max() < 0.5


def test_a_folder_with_pickles_alone_is_refused(saved, tmp_path):
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"has no \.safetensors file, and pickles are not opened"):
        open_model(str(tmp_path))


def copy_of(saved: Path, target: Path, **changed) -> Path:
    target.mkdir()
    for path in saved.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changed))
    return target


def test_a_folder_never_runs_code_of_its_own(saved, tmp_path):
    path = copy_of(
        saved,
        tmp_path / "own",
        model_type="somebodys-own",
        auto_map={"AutoModelForImageClassification": "code.Model", "AutoConfig": "code.Config"},
    )
    (path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BadInput, match="cannot be opened as an image classifier"):
        open_model(str(path))
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_all_weights_is_refused(saved, tmp_path):
    path = copy_of(saved, tmp_path / "headless")
    state = safetensors.torch.load_file(path / "model.safetensors")
    headless = {name: value for name, value in state.items() if not name.startswith("classifier")}
    safetensors.torch.save_file(headless, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"misses 'classifier.bias', so that weights would be made up"):
        open_model(str(path))


def test_a_folder_without_a_processor_asks_for_mean_and_std(saved, tmp_path, images):
    path = copy_of(saved, tmp_path / "bare", id2label=None, label2id=None, num_labels=5)
    for processor in path.glob("*processor*"):
        processor.unlink()
    model = open_model(str(path))
    assert model.class_names is None
    with pytest.raises(BadInput, match="does not say how its images are normalised; expected mean and std"):
        predictions_of(model, images)
    told = open_model(str(path), mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], class_names=NAMES[::-1])
    np.testing.assert_allclose(
        logits(predictions_of(told, images)), logits(predictions_of(open_model(str(saved)), images))
    )


def test_what_a_model_needs_is_said(tmp_path, monkeypatch):
    (tmp_path / "x.onnx").write_bytes(b"")
    for package, text in (("transformers", tmp_path), ("onnxruntime", tmp_path / "x.onnx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(BadInput, match=rf"the package {package}; run pip install fairq-utils\[models\]"):
            open_model(str(text))


# ---------------------------------------------------------------- two models: quantized elsewhere


def test_the_file_of_packed_codes_is_the_network_after(trained, images, folder):
    rounded = quantize_model(trained, UniformQuantizer(3))
    save_packed(rounded, folder / "packed.safetensors")
    after = opened(of_here("tiny"), weights=folder / "packed.safetensors")
    np.testing.assert_array_equal(logits(predictions_of(after, images)), expected(bake(rounded), images))


def test_an_onnx_file_that_onnxruntime_quantized_is_a_second_model(doors, images, folder):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    quantization = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime is not installed")
    model = onnx.load(folder / "any.onnx")
    del model.graph.value_info[:]  # shapes from before a weight was turned, which onnxruntime takes as said
    quantization.quantize_dynamic(model, folder / "int8.onnx")
    after = opened(folder / "int8.onnx")
    one, two = (logits(predictions_of(model, images)) for model in (doors["onnx"], after))
    assert 0 < np.abs(one - two).max() < 0.2
    assert layers(doors["onnx"], after).empty
    with pytest.raises(BadInput, match=r"int8\.onnx has no floating-point weight that a layer reads"):
        after.treated("int4", images)


def torchao_int8() -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed: make peers")
    network = tiny(seed=1).eval()
    quantization.quantize_(network, quantization.Int8WeightOnlyConfig())
    return network


def test_a_network_that_torchao_quantized_is_a_second_model(images):
    before = opened(of_here("tiny"), arguments={"seed": 1})
    after = opened(of_here("torchao_int8"))
    rounded = before.treated("int8-channel", images)
    one, two, three = (logits(predictions_of(model, images)) for model in (before, after, rounded))
    assert 0 < np.abs(one - two).max() < 0.05
    assert np.abs(two - three).max() < 0.05
    table = layers(before, after).set_index("layer")
    assert list(table.index) == ["conv.weight", "inner.weight", "head.weight"]
    assert table["zero_after"].tolist() == pytest.approx(
        layers(before, rounded)["zero_after"].tolist(), abs=0.01
    )


# ---------------------------------------------------------------- what is said in one sentence


def refusal(text: str, **options) -> str:
    with pytest.raises(BadInput) as caught:
        open_model(text, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_such_package.code:make", "no_such_package.code cannot be imported (ModuleNotFoundError: No mod"),
        (of_here("absent"), "has no 'absent'; expected package.module:factory"),
        (of_here("broken"), "broken raised RuntimeError: no such; expected a function that returns"),
        (of_here("number"), "number returned a int; expected a torch.nn.Module"),
        ("network.safetensors", "holds weights and not the network"),
        ("network.tflite", "model is 'network.tflite'; expected package.module:factory, a .pt2"),
        ("absent.onnx", "absent.onnx is no file"),
        ("absent.pt2", "absent.pt2 is no file"),
    ],
)
def test_a_model_that_is_none_is_refused(text, said):
    assert said in refusal(text)


@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
def test_a_file_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    assert re.search(rf"{name} cannot be (run|loaded) \(", refusal(str(tmp_path / name)))


def test_an_empty_folder_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert "has no config.json" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("conv.bias"), "has no 'conv.bias', which the network has"),
        (lambda state: state.update(extra=torch.ones(1)), "has 'extra', which the network has not"),
        (
            lambda state: state.update({"head.bias": torch.ones(7)}),
            "has 'head.bias' of shape 7, which has 5 in the network",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, said):
    state = tiny().state_dict()
    change(state)
    for suffix, save in ((".safetensors", safetensors.torch.save_file), (".pt", torch.save)):
        path = tmp_path / f"w{suffix}"
        save(state, path)
        assert said in refusal(of_here("tiny"), weights=path)


class Running:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_a_pickle_is_not_run_but_refused(tmp_path):
    trace, path = tmp_path / "ran", tmp_path / "w.pt"
    for write in (lambda value: torch.save(value, path), lambda value: path.write_bytes(pickle.dumps(value))):
        write({"conv.weight": Running(trace)})
        said = refusal(of_here("tiny"), weights=path)
        assert "could run code; expected tensors alone: save the state dict by safetensors.torch" in said
        assert not trace.exists()


def test_a_pickle_inside_a_program_is_not_run(doors, folder, tmp_path, monkeypatch):
    trace, path = tmp_path / "ran", tmp_path / "evil.pt2"
    bad = io.BytesIO()
    torch.save(((Running(trace),), {}), bad)
    with zipfile.ZipFile(folder / "any.pt2") as old, zipfile.ZipFile(path, "w") as new:
        assert any("sample_inputs" in name for name in old.namelist())
        for name in old.namelist():
            new.writestr(name, bad.getvalue() if "sample_inputs" in name else old.read(name))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert re.search(r"evil\.pt2 holds \w+\.open beside plain tensors, and to open it", refusal(str(path)))
    assert not trace.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    assert "holds a dict that is no state dict" in refusal(of_here("tiny"), weights=tmp_path / "w.pt")


def test_weights_of_a_model_that_brings_its_own_are_refused(folder, doors):
    said = refusal(str(folder / "any.onnx"), weights=folder / "w.safetensors")
    assert "brings its own; expected them with package.module:factory alone" in said


def test_a_program_in_training_mode_is_refused(tmp_path):
    program = torch.export.export(tiny().train(), (torch.rand(2, 3, 16, 16),))
    torch.export.save(program, tmp_path / "training.pt2")
    assert "was exported in training mode (" in refusal(str(tmp_path / "training.pt2"))


def test_a_graph_that_takes_something_else_is_refused(tmp_path):
    five = nn.Sequential(nn.Conv2d(5, 2, 3), nn.Flatten())
    torch.export.save(torch.export.export(five, (torch.rand(2, 5, 16, 16),)), tmp_path / "five.pt2")
    assert "five.pt2 takes 2 × 5 × 16 × 16; expected images × channels × height × width" in refusal(
        str(tmp_path / "five.pt2")
    )


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("tuples", "the model returned a tuple; expected a tensor of logits"),
        ("dicts", "the model returned a dict; expected a tensor of logits"),
        ("maps", "returned a tensor of shape (20, 5, 1, 1); expected images × classes"),
        ("nans", "gives NaN or infinity for"),
    ],
)
def test_what_is_no_logit_is_refused(images, factory, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        predictions_of(opened(of_here(factory)), images)


def test_logits_in_an_object_are_taken(images):
    one, two = (predictions_of(opened(of_here(name)), images) for name in ("wrapped", "tiny"))
    pd.testing.assert_frame_equal(one, two)


def test_another_number_of_classes_is_refused_with_both(images):
    for options in ({}, {"class_names": ["a"] * 7}):
        model = opened(of_here("tiny"), arguments={"classes": 7}, **options)
        with pytest.raises(BadInput, match=r"tells 7 classes apart, and the data have 5 labels \(Alder,"):
            predictions_of(model, images)


def test_classes_of_other_names_are_refused(images):
    model = opened(of_here("tiny"), class_names=["Alder", "Bracken", "Clover", "Dahlia", "Others"])
    with pytest.raises(BadInput, match="has no class 'Damson', which is a label of the data"):
        predictions_of(model, images)


def test_images_of_another_size_are_refused(doors):
    images = DataSettings(train_images=40, test_images=20, image_size=24).load()
    for door in doors.values():
        fixed = "takes images of 16 pixels along a side, and these have 24" if door.image_size else "raised"
        with pytest.raises(BadInput, match=fixed):
            predictions_of(door, images)


@pytest.mark.parametrize("option", [{"mean": [1, 2]}, {"std": ["a"]}, {"std": [0.2, 0.2, 0]}])
def test_a_normalisation_that_is_none_is_refused(option):
    assert re.match(r"(mean|std) is \(", refusal(of_here("tiny"), **option))


def test_a_treatment_that_trains_is_refused(doors, images):
    with pytest.raises(BadInput, match="'int4-qat' trains, and an audit does not"):
        doors["factory"].treated("int4-qat", images)


def test_a_graph_takes_treatments_of_weights_alone(doors, images):
    for name in ("program", "onnx"):
        with pytest.raises(BadInput, match="changes more than weights"):
            doors[name].treated("w4a8", images)


def test_a_factory_may_lie_in_the_working_directory(tmp_path, monkeypatch, images):
    (tmp_path / "my_factory.py").write_text(f"from {__name__} import tiny\n")
    monkeypatch.chdir(tmp_path)
    assert open_model("my_factory:tiny").name == "my_factory:tiny"
    assert str(tmp_path) not in sys.path


def test_what_a_record_says_of_a_model_is_plain_json(doors, images):
    for door in doors.values():
        said = door.treated("int4", images).description()
        assert json.loads(json.dumps(said)) == said
        assert said["treatment"] == "int4"
    assert re.fullmatch(r"[0-9a-f]{64}", doors["onnx"].description()["sha256"])


# ---------------------------------------------------------------- the command


AS_IN_THE_BOOK = ("--mean", 0.5, "--std", 0.25)


def audited(*arguments: object) -> Result:
    return CliRunner().invoke(main.main, ["audit", *map(str, arguments)])


SMALL = (*AS_IN_THE_BOOK, "--train-images", 40, "--test-images", 60, "--image-size", 16)


def test_a_model_and_a_treatment_are_audited(tmp_path, folder, doors):
    options = ("--model", of_here("tiny"), "--weights", folder / "w.safetensors", "-a", "seed=3")
    result = audited(*options, "--treatment", "int2", *SMALL, "--out", tmp_path / "audit")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert record["compared"]["n"] == 60
    assert record["compared"]["after"]["name"] == f"{of_here('tiny')} int2"
    said = r"(\S+) \(SHA-256 \w{12}, mean 0.5, std 0.25\), and the same at int2, on 60 test images of 16 × 16"
    assert re.match(said, record["compared"]["description"])
    assert [layer["layer"] for layer in record["layers"]] == ["conv.weight", "inner.weight", "head.weight"]
    # what is left beside it gives the same audit again
    left = [tmp_path / "audit" / f"{name}.parquet" for name in ("before", "after")]
    again = audited("--predictions", *left, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again" / "audit.json").read_text())["overall"] == record["overall"]


def test_two_models_are_audited_whatever_their_kind(tmp_path, folder, doors):
    models = ("--model", of_here("tiny"), "--weights", folder / "w.pt", "--model", folder / "any.onnx")
    result = audited(*models, *SMALL, "--out", tmp_path, "--fail-if", "flip_rate > 0.01")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record["overall"]["drop"]["estimate"] == 0


def test_the_size_is_the_one_that_the_model_takes(tmp_path, folder, doors):
    few = SMALL[:-2]
    result = audited("--model", folder / "any.pt2", "--treatment", "int8", *few, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "60 test images of 16 × 16 pixels" in (tmp_path / "audit.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--model was given 0 times, without --treatment; expected one model and --treatment"),
        (("--model", "a:b"), "--model was given 1 times, without --treatment"),
        (
            ("--model", "x.onnx", "--weights", "w.pt", "--treatment", "int4"),
            "for 0 factories; expected at mo",
        ),
        (("--model", "a:b", "--treatment", "int4", "--mean", "x"), "mean is 'x'; expected numbers, such as"),
        (("--predictions", "a", "b", "--model", "a:b"), "--model was given beside --predictions"),
        (("--model", "a:b", "--treatment", "int4", "--fail-if", "x"), "'x'"),
    ],
)
def test_what_the_command_cannot_audit_is_said(tmp_path, arguments, said):
    result = audited(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.output
