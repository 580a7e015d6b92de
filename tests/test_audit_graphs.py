"""ONNX files as other tools leave them: quantized in several ways, and with weights that nobody looks for."""

import numpy as np
import pytest
import torch
from torch import nn

from fairq_audit.models.tables import layers, predictions_of
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.quantization.onnx import export_onnx
from tests.test_audit_models import logits, opened, tiny

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
quantization = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def images():
    return DataSettings(train_images=40, test_images=20, image_size=16).load()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "fp32.onnx"
    export_onnx(tiny(seed=1).eval(), path, example=torch.zeros(2, 3, 16, 16))
    return path


class Calibration(quantization.CalibrationDataReader):
    """Training images, one batch, as onnxruntime asks for them."""

    def __init__(self, name, images):
        batch = images.images[images.is_train].float() / 63.75 - 2
        self.batches = iter([{name: batch.numpy()}])

    def get_next(self):
        return next(self.batches, None)


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_what_onnxruntime_quantized_answers_nearly_as_before(whole, images, tmp_path, form):
    model = onnx.load(whole)
    del model.graph.value_info[:]  # shapes from before a weight was turned, which onnxruntime takes as said
    onnx.save(model, tmp_path / "plain.onnx")
    after = tmp_path / "int8.onnx"
    if form == "dynamic":
        quantization.quantize_dynamic(tmp_path / "plain.onnx", after)
    else:
        quantization.quantize_static(
            tmp_path / "plain.onnx",
            after,
            Calibration(model.graph.input[0].name, images),
            quant_format=quantization.QuantFormat[form],
        )
    kinds = {node.op_type for node in onnx.load(after).graph.node}
    marks = {"QDQ": "DequantizeLinear", "QOperator": "QLinearConv", "dynamic": "DynamicQuantizeLinear"}
    assert marks[form] in kinds
    one, two = (predictions_of(opened(path), images) for path in (whole, after))
    assert 0 < np.abs(logits(one) - logits(two)).max() < 0.2
    with pytest.raises(BadInput, match="has no floating-point weight that a layer reads"):
        opened(after).treated("int4", images)


def test_weights_in_constant_nodes_are_rounded_as_any(whole, images, tmp_path):
    model = onnx.load(whole)
    held = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in model.graph.initializer
    ]
    nodes = [*held, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "constants.onnx")
    before, other = opened(whole), opened(tmp_path / "constants.onnx")
    rounded, same = before.treated("int3", images), other.treated("int3", images)
    np.testing.assert_array_equal(
        logits(predictions_of(rounded, images)), logits(predictions_of(same, images))
    )
    assert layers(other, same)["zero_after"].tolist() == layers(before, rounded)["zero_after"].tolist()
    assert not np.allclose(logits(predictions_of(other, images)), logits(predictions_of(same, images)))


@pytest.mark.parametrize("treatment", ["int4-temperature", "int4-groupbits", "w4a8"])
def test_a_graph_refuses_what_looks_at_images(whole, images, treatment):
    with pytest.raises(BadInput, match="changes more than weights, or looks at images to change them"):
        opened(whole).treated(treatment, images)


class NoInference(nn.Module):
    """Refuses as networks do whose weights are packed in tensors of their own kind, such as quanto's."""

    def __init__(self):
        super().__init__()
        self.network = tiny(seed=1)

    def forward(self, images):
        if torch.is_inference(images + 0):
            raise RuntimeError("Cannot set version_counter for inference tensor")
        return self.network(images)


def test_a_network_is_not_run_in_inference_mode(images):
    one = predictions_of(opened("tests.test_audit_graphs:NoInference"), images)
    two = predictions_of(opened("tests.test_audit_models:tiny", arguments={"seed": 1}), images)
    assert logits(one).tolist() == logits(two).tolist()
