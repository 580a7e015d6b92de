import subprocess
import sys

import pytest
import torch
from torch import nn

from fairq_utils.encoders import linear_layers
from fairq_utils.encoders.linear_layers import (
    LINEAR_TREATMENTS,
    attention_of_linear_layers,
    linear_treatments,
    quantize_linear,
    runs,
)
from fairq_utils.errors import BadInput
from fairq_utils.quantization.quantizers import NF4Quantizer, UniformQuantizer


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Embedding(3, 4), nn.Linear(128, 32, bias=False))


def outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model[3](model[1](model[0](inputs))).detach()


@pytest.mark.parametrize("treatment", LINEAR_TREATMENTS)
def test_each_treatment_computes_and_errs_as_its_bits_let_it(model, treatment):
    inputs = torch.randn(50, 64)
    before = outputs(model, inputs)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    treated = quantize_linear(model, treatment)
    error = (outputs(treated, inputs) - before).norm() / before.norm()
    bounds = {"fp32": (0, 0), "int4": (0.03, 0.3), "bnb-nf4": (0.03, 0.3), "int3": (0.1, 0.6)}
    low, high = bounds.get(treatment, (0.0005, 0.05))
    assert low <= error <= high
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(treated[2].weight, model[2].weight)  # no linear layer, and untouched


@pytest.mark.parametrize(
    ("treatment", "quantizer"), [("int8", UniformQuantizer(8)), ("int3", UniformQuantizer(3))]
)
def test_ours_are_the_quantizers(model, treatment, quantizer):
    assert torch.equal(quantize_linear(model, treatment)[0].weight, quantizer(model[0].weight.detach()))


@pytest.mark.skipif(linear_layers._bitsandbytes() is None, reason="bitsandbytes is not installed: make peers")
def test_bitsandbytes_is_what_runs_and_its_nf4_is_ours(model):
    assert runs("bnb-nf4").startswith("bitsandbytes ")
    assert runs("bnb-int8").startswith("bitsandbytes ")
    layer = quantize_linear(model, "bnb-int8")[0]
    assert layer.weight.dtype == torch.int8
    inputs = torch.randn(20, 64)
    own = nn.functional.linear(inputs, NF4Quantizer()(model[0].weight.detach()), model[0].bias)
    assert torch.allclose(quantize_linear(model, "bnb-nf4")[0](inputs), own, atol=1e-4)


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (7, 128), (64, 96), (64, 288), (5, 27), (33, 65)])
def test_nf4_is_nf4_whatever_the_shape(outputs, inputs):
    torch.manual_seed(0)
    model, signal = nn.Sequential(nn.Linear(inputs, outputs)), torch.randn(4, inputs)
    own = nn.functional.linear(signal, NF4Quantizer()(model[0].weight.detach()), model[0].bias)
    assert torch.allclose(quantize_linear(model, "bnb-nf4")(signal), own, atol=1e-4)


@pytest.mark.skipif(not linear_layers._has_dynamic(), reason="this PyTorch has no dynamic quantization")
def test_pytorchs_own_rounds_inputs_too(model):
    layer = quantize_linear(model, "torch-int8")[0]
    assert runs("torch-int8").startswith("PyTorch ")
    assert "DynamicQuantizedLinear" in repr(layer)
    weights_alone = nn.functional.linear(torch.ones(1, 64) / 3, layer.weight().dequantize(), layer.bias())
    assert torch.allclose(layer(torch.ones(1, 64) / 3), weights_alone, atol=0.05)


def test_where_a_library_is_missing_ours_stands_in_by_name(model, monkeypatch):
    monkeypatch.setattr(linear_layers, "_bitsandbytes", lambda: None)
    monkeypatch.setattr(linear_layers, "_has_dynamic", lambda: False)
    table = linear_treatments().set_index("treatment")["runs"]
    assert table["bnb-nf4"] == "fairq_utils: NF4Quantizer(4), in place of bitsandbytes"
    assert (
        table["bnb-int8"]
        == "fairq_utils: UniformQuantizer(8, axis=0), weights alone, in place of bitsandbytes"
    )
    assert table["torch-int8"] == "fairq_utils: UniformQuantizer(8), weights alone, in place of PyTorch's"
    weight = model[0].weight.detach()
    assert torch.equal(quantize_linear(model, "bnb-nf4")[0].weight, NF4Quantizer()(weight))
    assert torch.equal(quantize_linear(model, "bnb-int8")[0].weight, UniformQuantizer(8, axis=0)(weight))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_linear_layers_is_attention(batch_first, bias):
    torch.manual_seed(1)
    module = nn.MultiheadAttention(12, 3, batch_first=batch_first, bias=bias).eval()
    ours = attention_of_linear_layers(nn.ModuleList([module]))[0]
    signal = torch.randn(4, 5, 12)  # examples and places, or the other way round
    places, count = (5, 4) if batch_first else (4, 5)
    causal = torch.ones(places, places, dtype=torch.bool).triu(1)
    padding = torch.zeros(count, places, dtype=torch.bool)
    padding[0, -1] = True
    added = torch.randn(count * 3, places, places)
    for options in (
        {},
        {"attn_mask": causal},
        {"attn_mask": added},
        {"key_padding_mask": padding},
        {"attn_mask": causal, "key_padding_mask": padding},
    ):
        own, _ = ours(signal, signal, signal, need_weights=False, **options)
        theirs, _ = module(signal, signal, signal, need_weights=False, **options)
        assert torch.allclose(own, theirs, atol=1e-5), options


def test_attention_is_treated(model):
    layer = nn.ModuleList([nn.MultiheadAttention(16, 2, batch_first=True)])
    treated = quantize_linear(layer, "int4")[0]
    assert len(treated.queries_keys_values.weight.unique()) <= 15
    assert len(treated.heads_together.weight.unique()) <= 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize_linear(nn.Sequential(nn.ReLU()), "int4"), "no linear layer"),
        (lambda: quantize_linear(nn.Sequential(nn.Linear(2, 2)), "int17"), "treatment is 'int17'"),
        (
            lambda: attention_of_linear_layers(nn.ModuleList([nn.MultiheadAttention(4, 2, kdim=3)])),
            "0 is attention",
        ),
        (lambda: crossed(), "other keys than queries"),
        (lambda: quantize_linear(broken(), "int4"), "not all finite"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(BadInput, match=message):
        call()


def crossed() -> None:
    attention = attention_of_linear_layers(nn.ModuleList([nn.MultiheadAttention(4, 2)]))[0]
    attention(torch.ones(1, 1, 4), torch.ones(1, 1, 4), torch.ones(1, 1, 4))


def broken() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = torch.nan
    return nn.Sequential(layer)


def test_nothing_is_imported_until_it_is_asked_for():
    code = (
        "import sys, fairq_book.experiments.populations\n"
        "print(sorted({'bitsandbytes', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
