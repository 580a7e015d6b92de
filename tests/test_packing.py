"""What leaves the project: files of packed codes that come back bit for bit, and ONNX that others execute."""

import copy
import json
import os
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fairq_utils.errors import BadInput
from fairq_utils.quantization.controls import all_but_zero_bin, only_zero_bin
from fairq_utils.quantization.models import (
    bake,
    describe,
    quantize_model,
    reestimate_batchnorm,
    storage_bytes,
)
from fairq_utils.quantization.onnx import export_onnx
from fairq_utils.quantization.packing import load_packed, pack_codes, save_packed, unpack_codes
from fairq_utils.quantization.quantizers import (
    CodebookQuantizer,
    FloatQuantizer,
    LearnedStepQuantizer,
    NF4Quantizer,
    PowerOfTwoQuantizer,
    UniformQuantizer,
)
from fairq_utils.training.architectures import build


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()


IMAGES = normal(6, 3, 12, 12, seed=5)
QUANTIZERS = [
    *(UniformQuantizer(bits) for bits in (3, 5, 6, 7)),
    *(UniformQuantizer(bits, symmetric=False, clip="mse", axis=0) for bits in (2, 7, 12)),
    UniformQuantizer(4, axis=0),
    UniformQuantizer(3, axis=1, clip="percentile", narrow=False),
    UniformQuantizer(16, axis=0, clip="mse"),
    UniformQuantizer(16, symmetric=False),
    LearnedStepQuantizer(4),
    LearnedStepQuantizer(3, axis=0, narrow=False),
    CodebookQuantizer(3),
    CodebookQuantizer(2, axis=0),
    PowerOfTwoQuantizer(4),
    PowerOfTwoQuantizer(8),
    NF4Quantizer(),
    NF4Quantizer(block=24),
    *(FloatQuantizer(format) for format in ("fp16", "bf16", "fp8", "fp8-e5m2")),
]


def same_state(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


def header_bytes(path):
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


# ---------------------------------------------------------------- bits


@settings(max_examples=60)
@given(st.data(), st.integers(1, 32), st.booleans())
def test_codes_are_the_digits_of_one_large_number(data, bits, signed):
    lowest = -(2 ** (bits - 1)) if signed else 0
    bounds = st.integers(lowest, min(lowest + 2**bits, 2**31) - 1)
    codes = torch.tensor(data.draw(st.lists(bounds, max_size=40)), dtype=torch.int32)
    packed = pack_codes(codes, bits)
    digits = sum(code % 2**bits << bits * place for place, code in enumerate(codes.tolist()))
    assert int.from_bytes(packed.numpy().tobytes(), "little") == digits
    assert len(packed) == -(-len(codes) * bits // 8)
    unsigned = bits == 32 or signed
    assert torch.equal(unpack_codes(packed, bits, count=len(codes), signed=unsigned), codes)


# ---------------------------------------------------------------- files of packed codes


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_what_is_loaded_is_what_was_saved_and_as_short_as_was_said(quantizer, tmp_path):
    quantized = quantize_model(small_network(), quantizer)
    baked, path = bake(quantized), tmp_path / "network.safetensors"
    for network in (quantized, baked):
        save_packed(network, path)
        plain = small_network(seed=1)
        before = copy.deepcopy(plain)
        loaded = load_packed(path, into=plain)
        assert same_state(loaded, baked)
        assert same_state(plain, before)
        assert describe(loaded).equals(describe(baked))
        assert torch.equal(loaded(IMAGES), baked(IMAGES))

        tables = {name: value.nbytes for name, value in safetensors.torch.load_file(path).items()}
        shared = sum(nbytes for name, nbytes in tables.items() if name.startswith(":levels"))
        assert path.stat().st_size - header_bytes(path) == storage_bytes(network) + shared
        assert shared <= 255 * 4


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axis", [None, 0])
def test_a_second_saving_writes_the_same_bytes(bits, axis, tmp_path):
    save_packed(bake(quantize_model(small_network(), UniformQuantizer(bits, axis=axis))), tmp_path / "first")
    loaded = load_packed(tmp_path / "first", into=small_network(seed=1))
    save_packed(loaded, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("bits", range(2, 9))
def test_described_scales_make_whole_codes_in_range_of_baked_weights(bits):
    baked = bake(quantize_model(small_network(), UniformQuantizer(bits)))
    for row in describe(baked).itertuples():
        assert row.bits == bits
        codes = baked.get_parameter(row.layer).detach().double() / row.scale
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
        assert (row.lowest, row.highest) == (codes.min().round(), codes.max().round())
        assert max(-row.lowest, row.highest) == 2 ** (bits - 1) - 1


@pytest.mark.parametrize("half", [only_zero_bin, all_but_zero_bin])
def test_weights_that_an_ablation_leaves_free_are_saved_as_they_are(half, tmp_path):
    quantized = quantize_model(small_network(), half(UniformQuantizer(2)))
    for network in (quantized, bake(quantized)):
        save_packed(network, tmp_path / "network")
        assert same_state(load_packed(tmp_path / "network", into=small_network(seed=1)), bake(quantized))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_come_back_in_their_own(dtype, tmp_path):
    network = small_network().to(dtype)
    for quantizer in (UniformQuantizer(5), UniformQuantizer(5, axis=0), NF4Quantizer(), CodebookQuantizer(3)):
        quantized = quantize_model(network, quantizer)
        save_packed(quantized, tmp_path / "network")
        assert same_state(load_packed(tmp_path / "network", into=network), bake(quantized))


def test_widths_may_differ_and_rounded_inputs_come_back(tmp_path):
    activations = (UniformQuantizer(8, symmetric=False), [IMAGES])
    quantized = quantize_model(small_network(), UniformQuantizer(3), first_last=8, activations=activations)
    save_packed(bake(quantized), tmp_path / "network")
    loaded = load_packed(tmp_path / "network", into=small_network(seed=1))
    assert describe(loaded).equals(describe(quantized))
    assert torch.equal(loaded(3 * IMAGES), quantized(3 * IMAGES))


def test_a_lone_layer_with_rounded_inputs_comes_back(tmp_path):
    layer, inputs = nn.Linear(4, 2), normal(3, 4)
    quantized = quantize_model(layer, UniformQuantizer(4), activations=(UniformQuantizer(4), [inputs]))
    save_packed(quantized, tmp_path / "layer")
    assert torch.equal(load_packed(tmp_path / "layer", into=layer)(inputs), quantized(inputs))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def test_a_tied_weight_is_saved_once(tmp_path):
    quantized = quantize_model(Tied(), UniformQuantizer(4))
    save_packed(quantized, tmp_path / "network")
    loaded = load_packed(tmp_path / "network", into=Tied())
    assert loaded.head.weight is loaded.embedding.weight
    assert same_state(loaded, bake(quantized))
    data = (tmp_path / "network").stat().st_size - header_bytes(tmp_path / "network")
    assert data == 50 * 8 / 2 + 4 + 50 * 4


@pytest.mark.parametrize("arch", ["resnet18", "vit"])
def test_a_whole_network_takes_what_storage_says(arch, tmp_path):
    network, path = build(arch, classes=5), tmp_path / "network"
    baked = bake(quantize_model(network, UniformQuantizer(4, axis=0), first_last=8))
    save_packed(baked, path)
    assert same_state(load_packed(path, into=network), baked)
    assert path.stat().st_size - header_bytes(path) == storage_bytes(baked)
    assert header_bytes(path) < 30_000


def test_files_that_cannot_be_loaded_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "network"
    quantized = quantize_model(small_network(), UniformQuantizer(4))
    save_packed(quantized, path)
    content = path.read_bytes()

    def refused(sentence, *, given=content, into=None):
        path.write_bytes(given)
        with pytest.raises(BadInput, match=sentence):
            load_packed(path, into=into or small_network())

    for length in (0, 5, 100, len(content) - 1):
        refused("is cut short or no safetensors file", given=content[:length])
    refused("another architecture: 0.weight is float32 of shape", into=build("resnet18", classes=5))
    refused(r"6.weight is float32 of shape \(5, 32\) there and nothing", into=small_network()[:6])
    refused("into is quantized already; expected a plain network", into=quantized)
    tensors = safetensors.torch.load(content)
    refused("was not written by save_packed", given=safetensors.torch.save(tensors))
    for header, sentence in [
        ("[", "was not written by save_packed"),
        ('{"version": 2}', "has version 2 of the format; expected 1"),
        ('{"version": 1}', "is damaged"),
    ]:
        refused(sentence, given=safetensors.torch.save(tensors, {"fairq-packed": header}))
    with safetensors.safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["fairq-packed"])["version"] == 1
    path.unlink()
    with pytest.raises(BadInput, match="cannot be read; expected a file that save_packed wrote"):
        load_packed(path, into=small_network())


def test_a_damaged_header_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "network"
    save_packed(quantize_model(small_network(), NF4Quantizer()), path)
    content = path.read_bytes()
    header = json.loads(safetensors.safe_open(path, framework="pt").metadata()["fairq-packed"])
    tensors = safetensors.torch.load(content)
    for key, value in [
        ("shape", [8, 3, 3]),
        ("shape", "no"),
        ("dtype", "save"),
        ("levels", "gone"),
        ("bits", 9),
    ]:
        broken = copy.deepcopy(header)
        broken["weights"]["0.weight"][key] = value
        path.write_bytes(safetensors.torch.save(tensors, {"fairq-packed": json.dumps(broken)}))
        with pytest.raises(BadInput, match=r"is damaged|another architecture"):
            load_packed(path, into=small_network())


def test_weights_that_left_their_grid_are_refused(tmp_path):
    baked = bake(quantize_model(small_network(), UniformQuantizer(4)))
    with torch.no_grad():
        baked[0].weight.mul_(1.01)
    with pytest.raises(BadInput, match=r"0.weight has left the grid of 4 bits that it was baked on"):
        save_packed(baked, tmp_path / "network")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "network"
    save_packed(quantize_model(small_network(), UniformQuantizer(4)), path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\)"):
        save_packed(quantize_model(small_network(), UniformQuantizer(2)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- ONNX


def executed(path, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # or it rounds inputs that the network does not
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def initializers(path):
    return [onnx.numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer]


def trained_alike(arch):
    """A network whose logits differ, as those of a fresh one do not; without blocks that repeat others."""
    torch.manual_seed(0)
    network = build(arch, classes=5).eval()
    if arch == "vit":
        network.encoder.layers = network.encoder.layers[:2]
    if arch == "mobilenet_v3_small":
        for block in (11, 10, 8, 6, 5, 3):
            del network.features[block]
    *_, head = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    nn.init.normal_(head.weight)
    return reestimate_batchnorm(network, [normal(16, 3, 32, 32, seed=3)])


@pytest.mark.parametrize(
    ("arch", "quantizer"),
    [
        ("resnet18", UniformQuantizer(8)),
        ("mobilenet_v3_small", UniformQuantizer(8, axis=0)),
        ("vit", UniformQuantizer(6, symmetric=False, axis=0)),
    ],
)
@torch.no_grad()
def test_onnxruntime_predicts_the_same_from_whole_numbers(arch, quantizer, tmp_path):
    network, path = trained_alike(arch), tmp_path / "network.onnx"
    quantized = quantize_model(network, quantizer)
    export_onnx(bake(quantized), path, example=normal(1, 3, 32, 32))
    for count in (1, 3):
        images = normal(count, 3, 32, 32, seed=count)
        expected = quantized(images)
        assert expected.std() > 0.1
        # Each sums in an order of its own, so what differs goes by the spread of the logits;
        # rounding moves them by a tenth of that.
        near = 1e-4 * expected.std().item()
        torch.testing.assert_close(executed(path, images), expected, rtol=1e-4, atol=near)

    onnx.checker.check_model(onnx.load(path), full_check=True)
    whole = [array for array in initializers(path) if array.dtype in (np.int8, np.uint8) and array.ndim > 1]
    table = describe(quantized)
    assert sorted(array.size for array in whole) == sorted(np.prod(shape) for shape in table["shape"])
    rest = storage_bytes(quantized) - table["bytes"].sum()
    assert path.stat().st_size < sum(array.size for array in whole) + rest + 100_000
    assert path.stat().st_size / storage_bytes(network) < (0.27 if arch == "resnet18" else 0.4)
    names = {value.name for value in onnx.load(path).graph.initializer}
    assert names >= {f"{name}:codes" for name in table["layer"]}
    assert b"site-packages" not in path.read_bytes()  # no paths of this machine


@pytest.mark.parametrize(
    "rounding",
    [
        UniformQuantizer(8),
        UniformQuantizer(8, narrow=False),
        UniformQuantizer(8, symmetric=False),
        UniformQuantizer(5, symmetric=False),
    ],
    ids=str,
)
@torch.no_grad()
def test_inputs_are_rounded_and_clipped_alike(rounding, tmp_path):
    torch.manual_seed(0)
    layer, path = nn.Linear(3, 2), tmp_path / "layer.onnx"
    seen = torch.tensor([[-1.0, 0.5, 2.0]])
    quantized = quantize_model(layer, UniformQuantizer(4), activations=(rounding, [seen]))
    export_onnx(quantized, path, example=seen)
    steps = torch.arange(-400, 401) + 0.2  # away from the ties, where two divisions may round apart
    inputs = (steps * rounding.scale(seen)).view(-1, 1).repeat(1, 3)
    torch.testing.assert_close(executed(path, inputs), quantized(inputs), rtol=1e-5, atol=1e-6)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2


@torch.no_grad()
def test_weights_and_inputs_of_a_network_are_exported_together(tmp_path):
    images = normal(64, 3, 12, 12, seed=7)
    rounding = UniformQuantizer(8, symmetric=False)
    quantized = quantize_model(small_network(), UniformQuantizer(8, axis=0), activations=(rounding, [IMAGES]))
    export_onnx(bake(quantized), tmp_path / "network.onnx", example=IMAGES)
    expected, logits = quantized(images), executed(tmp_path / "network.onnx", images)
    # sums in another order move a value across a tie, and so by a step, now and then
    assert ((logits - expected).abs() < 1e-4).float().mean() > 0.9
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.02)


@torch.no_grad()
def test_a_plain_network_and_a_tied_weight_are_exported(tmp_path):
    network = small_network()
    export_onnx(network, tmp_path / "plain.onnx", example=IMAGES)
    torch.testing.assert_close(
        executed(tmp_path / "plain.onnx", IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5
    )

    tied, tokens = quantize_model(Tied(), UniformQuantizer(8)), torch.arange(50)
    export_onnx(tied, tmp_path / "tied.onnx", example=tokens)
    torch.testing.assert_close(executed(tmp_path / "tied.onnx", tokens), tied(tokens), rtol=1e-4, atol=1e-5)
    assert [array.shape for array in initializers(tmp_path / "tied.onnx")].count((50, 8)) == 1


@pytest.mark.parametrize(
    "quantizer",
    [
        CodebookQuantizer(3),
        PowerOfTwoQuantizer(4),
        NF4Quantizer(),
        FloatQuantizer("fp8"),
        UniformQuantizer(9),
    ],
    ids=str,
)
def test_what_onnx_has_not_is_refused_with_the_way_out(quantizer, tmp_path):
    quantized = quantize_model(small_network(), quantizer)
    for network in (quantized, bake(quantized)):
        with pytest.raises(
            BadInput, match=r"0.weight has codes of \d bits .* use save_packed, which takes every"
        ):
            export_onnx(network, tmp_path / "network.onnx", example=IMAGES)
    assert not list(tmp_path.iterdir())


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.layer(inputs) if inputs.sum() > 0 else inputs


@pytest.mark.parametrize(
    ("network", "example", "sentence"),
    [
        (small_network(), IMAGES[:0], "example is no batch of inputs"),
        (small_network(), [1.0], "example is no batch of inputs"),
        (small_network().double(), IMAGES.double(), "the network is not in float32"),
        (Undecided(), normal(2, 3), "torch cannot express this network in ONNX"),
        (small_network(), normal(2, 5, 12, 12), "torch cannot express this network in ONNX"),
        (
            quantize_model(small_network(), None, activations=(UniformQuantizer(9), [IMAGES])),
            IMAGES,
            "0.input has codes of 9 bits for evenly spaced values; ONNX takes",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(network, example, sentence, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        export_onnx(network, tmp_path / "network.onnx", example=example)


@pytest.mark.parametrize("package", ["onnx_ir", "onnxscript"])
def test_a_missing_package_is_named_with_the_command(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(BadInput, match=r"ONNX needs the package .*; run pip install 'fairq-utils\[models\]'"):
        export_onnx(small_network(), tmp_path / "network.onnx", example=IMAGES)
