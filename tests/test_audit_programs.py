"""Programs of torch.export that other tools quantized, and what is said of one that cannot be opened."""

import logging
import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from fairq_audit.models.open import open_model
from fairq_audit.models.programs import load_program
from fairq_audit.models.tables import predictions_of
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from tests.test_audit_models import logits, opened, tiny

PEER = "torchao is not installed: make peers"
EXAMPLE = (torch.zeros(2, 3, 16, 16),)
ANY_BATCH = ({0: torch.export.Dim("batch")},)


@pytest.fixture(scope="module")
def images():
    return DataSettings(train_images=40, test_images=20, image_size=16).load()


def save(network, path):
    torch.export.save(torch.export.export(network, EXAMPLE, dynamic_shapes=ANY_BATCH), path)


@pytest.fixture(scope="module")
def by_pt2e(tmp_path_factory, images):
    """What PT2E makes of a network, its ranges taken from the images that it is to answer."""
    quantizing = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason=PEER)
    module = "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"
    x86 = pytest.importorskip(module, reason=PEER)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    whole = torch.export.export(tiny(seed=1).eval(), EXAMPLE, dynamic_shapes=ANY_BATCH).module()
    with warnings.catch_warnings(action="ignore"):  # torchao warns of what it calls itself
        prepared = quantizing.prepare_pt2e(whole, quantizer)
        prepared(images.images[images.is_test].float() / 63.75 - 2)
        converted = quantizing.convert_pt2e(prepared)
    path = tmp_path_factory.mktemp("pt2e") / "int8.pt2"
    save(converted, path)
    return path


@pytest.fixture(scope="module", params=["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def by_torchao(tmp_path_factory, request):
    """What torchao makes of one, exported with its own kind of tensors as weights."""
    quantization = pytest.importorskip("torchao.quantization", reason=PEER)
    network = tiny(seed=1).eval()
    quantization.quantize_(network, getattr(quantization, request.param)())
    path = tmp_path_factory.mktemp("torchao") / "int8.pt2"
    save(network, path)
    return path


def difference(path, images) -> float:
    """How far the logits are from those of the network that was quantized."""
    before = predictions_of(opened("tests.test_audit_models:tiny", arguments={"seed": 1}), images)
    return float(np.abs(logits(predictions_of(opened(path), images)) - logits(before)).max())


def test_a_program_that_pt2e_quantized_is_answered_by(by_pt2e, images):
    assert 0 < difference(by_pt2e, images) < 0.2


def test_a_program_that_torchao_quantized_is_answered_by(by_torchao, images):
    assert 0 < difference(by_torchao, images) < 0.2


ALONE = """
import sys
from fairq_audit.models.open import open_model
from fairq_utils.errors import BadInput
try:
    print(open_model(sys.argv[1]).image_size)
except BadInput as error:
    print(error)
"""


def alone(path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where nobody has imported what registers the operations."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(path)], capture_output=True, text=True, check=True
    )


def test_what_registers_operations_is_imported_and_says_nothing(by_pt2e, by_torchao):
    for path in (by_pt2e, by_torchao):
        done = alone(path)
        assert (done.stdout, done.stderr) == ("16\n", "")


def test_an_operation_that_nobody_registers_is_named_and_torch_is_silent(tmp_path):
    with torch.library._scoped_library("fairq_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")
        library.impl("twice", lambda x: torch.empty_like(x), "Meta")

        class Twice(torch.nn.Module):
            def forward(self, images):
                return torch.ops.fairq_test.twice(images).flatten(1)[:, :5]

        save(Twice(), tmp_path / "own.pt2")
    done = alone(tmp_path / "own.pt2")
    assert "own.pt2 calls torch.ops.fairq_test.twice, which torch does not have; expected" in done.stdout
    assert done.stderr == ""


def test_a_class_that_is_no_tensor_is_named_without_advice_to_run_it(tmp_path):
    class Holding(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5]

    program = torch.export.export(Holding(), EXAMPLE)
    program.example_inputs = ((Fraction(1, 3),), {})
    torch.export.save(program, tmp_path / "held.pt2")
    with pytest.raises(BadInput) as refused:
        open_model(str(tmp_path / "held.pt2"))
    assert "weights_only" not in str(refused.value)
    assert "holds fractions.Fraction beside plain tensors, and to open it could run code" in str(
        refused.value
    )


def test_a_file_that_is_none_is_refused_without_a_trace(tmp_path, caplog):
    (tmp_path / "x.pt2").write_bytes(b"PK\x05\x06" + bytes(18))  # an empty zip
    with caplog.at_level(logging.WARNING), pytest.raises(BadInput, match=r"x\.pt2 cannot be loaded \("):
        load_program(tmp_path / "x.pt2")
    assert caplog.text == ""
