"""Quantizers against other people's, against closed forms, and against what must hold for every tensor."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from sklearn.cluster import KMeans
from torch import nn
from torchvision.models import resnet18

from fairq_utils.errors import BadInput
from fairq_utils.quantization.controls import all_but_zero_bin, only_zero_bin
from fairq_utils.quantization.models import (
    bake,
    describe,
    quantize_model,
    reestimate_batchnorm,
    storage_bytes,
    zero_share,
)
from fairq_utils.quantization.quantizers import (
    CodebookQuantizer,
    FloatQuantizer,
    LearnedStepQuantizer,
    NF4Quantizer,
    PowerOfTwoQuantizer,
    UniformQuantizer,
)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(quantize, weight, upstream):
    leaf = weight.clone().requires_grad_()
    values = quantize(leaf)
    values.backward(upstream)
    return values.detach(), leaf.grad


def same_bits(ours, theirs):
    return torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


# ---------------------------------------------------------------- against other implementations

GRIDS = [
    {"clip": clip, "symmetric": symmetric, "narrow": narrow}
    for clip in ("absmax", "percentile", "mse")
    for symmetric, narrow in ((True, True), (True, False), (False, True))
]


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("options", GRIDS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_torch_rounds_to_the_same_bits_and_passes_the_same_gradients(bits, options, axis):
    weight, upstream = normal(6, 5, 40, seed=bits) + 0.3, normal(6, 5, 40, seed=99)
    quantizer = UniformQuantizer(bits, axis=axis, **options)
    grid = quantizer.grid(weight)

    def peer(leaf):
        if axis is None:
            return torch.fake_quantize_per_tensor_affine(
                leaf, grid.scale, grid.zero_point, grid.lowest, grid.highest
            )
        return torch.fake_quantize_per_channel_affine(
            leaf, grid.scale, grid.zero_point, axis, grid.lowest, grid.highest
        )

    values, gradient = value_and_gradient(quantizer, weight, upstream)
    expected, expected_gradient = value_and_gradient(peer, weight, upstream)
    assert same_bits(values, expected)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("axis", [None, 0])
def test_learned_steps_get_the_gradients_of_torchs_own(bits, axis):
    weight, upstream = normal(4, 50, seed=bits), normal(4, 50, seed=7)
    ours = LearnedStepQuantizer(bits, axis=axis).fitted(weight)
    values, gradient = value_and_gradient(ours, weight, upstream)

    highest = 2 ** (bits - 1) - 1
    factor = (weight.numel() / ours.step.numel() * highest) ** -0.5
    scale = ours.step.detach().clone().reshape(-1).requires_grad_()
    zero_point = torch.zeros(scale.shape)
    arguments = (-highest, highest, factor)

    def peer(leaf):
        if axis is None:
            return torch._fake_quantize_learnable_per_tensor_affine(leaf, scale, zero_point, *arguments)
        return torch._fake_quantize_learnable_per_channel_affine(leaf, scale, zero_point, 0, *arguments)

    expected, expected_gradient = value_and_gradient(peer, weight, upstream)
    assert torch.equal(values, expected)
    assert torch.equal(gradient, expected_gradient)
    torch.testing.assert_close(ours.step.grad.reshape(-1), scale.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("clip", ["absmax", "mse"])
def test_brevitas_chooses_the_same_scale_or_no_better_a_range(bits, narrow, channels, clip):
    pytest.importorskip("brevitas", reason="brevitas is not installed: make peers")
    from brevitas.nn import QuantLinear
    from brevitas.quant import scaled_int

    kind = f"Int8WeightPer{'Channel' if channels else 'Tensor'}Float{'MSE' if clip == 'mse' else ''}"
    layer = QuantLinear(
        60,
        8,
        bias=False,
        weight_quant=getattr(scaled_int, kind),
        weight_bit_width=bits,
        weight_narrow_range=narrow,
    )
    weight = normal(8, 60, seed=bits)
    with torch.no_grad():
        layer.weight.copy_(weight)
        theirs = layer.eval().quant_weight()
    quantizer = UniformQuantizer(bits, narrow=narrow, axis=0 if channels else None, clip=clip)
    if clip == "absmax":
        torch.testing.assert_close(quantizer(weight), theirs.value, rtol=1e-6, atol=0)
    else:
        error, peers = (quantizer(weight) - weight).norm(), (theirs.value - weight).norm()
        assert error <= peers * 1.005  # our search goes in steps of half a per cent


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("axis", [None, 0])
def test_torchao_chooses_the_same_affine_grid_and_codes(bits, axis):
    primitives = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="torchao is not installed: make peers"
    )
    weight = normal(8, 60, seed=bits) + 0.2
    block = (1, 60) if axis == 0 else (8, 60)
    scale, zero_point = primitives.choose_qparams_affine(
        weight, primitives.MappingType.ASYMMETRIC, block, torch.uint8, 0, 2**bits - 1
    )
    codes = primitives.quantize_affine(weight, block, scale, zero_point, torch.uint8, 0, 2**bits - 1)
    quantizer = UniformQuantizer(bits, symmetric=False, axis=axis)
    torch.testing.assert_close(
        quantizer.scale(weight), scale.reshape(quantizer.scale(weight).shape), rtol=1e-6, atol=0
    )
    assert torch.equal(quantizer.zero_point(weight).flatten(), zero_point.flatten())
    assert torch.equal(quantizer.codes(weight), codes.int())


def test_bitsandbytes_has_the_same_table_and_the_same_values():
    functional = pytest.importorskip(
        "bitsandbytes.functional", reason="bitsandbytes is not installed: make peers"
    )
    table = functional.get_4bit_type("nf4", device="cpu")
    grid = NF4Quantizer().grid(torch.ones(64))
    torch.testing.assert_close(grid.levels, table, rtol=0, atol=5e-7)  # theirs has seven digits of a quantile

    weight = normal(16, 64)
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    expected = functional.dequantize_4bit(packed, state)
    torch.testing.assert_close(NF4Quantizer(block=64)(weight), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_k_means_of_scipy_and_of_scikit_learn_end_at_the_same_codebook(bits):
    weight = normal(3000, seed=bits, dtype=torch.float64)
    levels = CodebookQuantizer(bits).grid(weight).levels[0].numpy()
    places = (np.arange(2**bits) + 0.5) / 2**bits * len(weight)
    start = np.sort(weight.numpy())[places.astype(int), None]
    sklearn = KMeans(2**bits, init=start, n_init=1, tol=0, max_iter=1000).fit(weight.numpy()[:, None])
    scipy, _ = kmeans2(weight.numpy()[:, None], start, iter=500, minit="matrix")
    np.testing.assert_allclose(levels, np.sort(sklearn.cluster_centers_.ravel()), atol=1e-9)
    np.testing.assert_allclose(levels, scipy.ravel(), atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_mse_search_finds_the_best_step_for_a_normal_distribution(bits):
    highest = 2 ** (bits - 1) - 1

    def expected_error(step):  # of a normal variable on the grid, by integration
        edges = np.concatenate([[0], (np.arange(highest) + 0.5) * step, [np.inf]])
        pieces = zip(np.arange(highest + 1) * step, edges[:-1], edges[1:], strict=True)
        return 2 * sum(quad(lambda x, v=v: (x - v) ** 2 * norm.pdf(x), a, b)[0] for v, a, b in pieces)

    best = minimize_scalar(expected_error, bounds=(0.01, 2), method="bounded")
    weight = normal(200_000)
    quantizer = UniformQuantizer(bits, clip="mse")
    assert float(quantizer.scale(weight)) == pytest.approx(best.x, rel=0.02)
    assert float((quantizer(weight) - weight).square().mean()) == pytest.approx(best.fun, rel=0.02)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("length", [20, 2000])  # fewer and more entries than grid values
def test_no_range_of_a_fine_search_beats_the_mse_range(bits, symmetric, length):
    weight = normal(3, length, seed=bits) ** 3
    quantizer = UniformQuantizer(bits, clip="mse", symmetric=symmetric, axis=0)
    low, high = UniformQuantizer(bits, symmetric=symmetric, axis=0).span(weight)
    grids = [quantizer.spaced(low * r, high * r, weight.dtype) for r in np.geomspace(1 / 256, 1, 1000)]
    errors = torch.stack([(grid(weight) - weight).square().sum(1) for grid in grids])
    ours = (quantizer(weight) - weight).square().sum(1)
    assert (ours <= errors.min(0)[0] * 1.03).all()


def test_powers_of_two_are_the_nearest_ones():
    weight = normal(1000, dtype=torch.float64) * 0.05
    values = PowerOfTwoQuantizer(4)(weight)
    largest = round(math.log2(weight.abs().max() / math.sqrt(9 / 8)))
    powers = np.array([math.ldexp(1, largest - k) for k in range(7)])
    table = np.concatenate([-powers, [0], powers])
    nearest = np.abs(weight.numpy()[:, None] - table).min(axis=1)
    np.testing.assert_array_equal((values - weight).abs().numpy(), nearest)


def every_finite_number(exponent_bits, mantissa_bits, bias, largest):
    codes = range(2 ** (exponent_bits + mantissa_bits))
    for exponent, mantissa in (divmod(code, 2**mantissa_bits) for code in codes):
        fraction = mantissa / 2**mantissa_bits + (exponent > 0)
        value = math.ldexp(fraction, max(exponent, 1) - bias)
        if value <= largest:
            yield from (value, -value)


@pytest.mark.parametrize(("format", "layout"), [("fp8", (4, 3, 7, 448)), ("fp8-e5m2", (5, 2, 15, 57344))])
def test_eight_bit_floats_are_the_nearest_of_their_format(format, layout):
    weight = normal(2000, dtype=torch.float64)
    table = np.array(sorted(every_finite_number(*layout))) * (float(weight.abs().max()) / layout[-1])
    nearest = np.abs(weight.numpy()[:, None] - table).min(axis=1)
    error = (FloatQuantizer(format)(weight) - weight).abs()
    np.testing.assert_allclose(error.numpy(), nearest, atol=1e-9)


def test_half_precision_agrees_with_numpy_and_saturates():
    weight = normal(1000) * 10
    assert torch.equal(
        FloatQuantizer("fp16")(weight), torch.from_numpy(weight.numpy().astype(np.float16)).float()
    )
    assert FloatQuantizer("fp16")(torch.tensor([1e6])).item() == 65504
    assert torch.equal(FloatQuantizer("bf16")(weight), weight.bfloat16().float())


# ---------------------------------------------------------------- what holds for every tensor


uniform = st.builds(
    UniformQuantizer,
    st.integers(2, 16),
    symmetric=st.booleans(),
    clip=st.sampled_from(["absmax", "minmax", "percentile", "mse"]),
    axis=st.sampled_from([None, 0, -1]),
    narrow=st.booleans(),
)
with_zero = st.one_of(
    uniform,
    st.builds(PowerOfTwoQuantizer, st.integers(2, 8)),
    st.builds(NF4Quantizer, block=st.integers(1, 70)),
    st.builds(FloatQuantizer, st.sampled_from(["fp16", "bf16", "fp8", "fp8-e5m2"])),
    st.builds(LearnedStepQuantizer, st.integers(2, 16), narrow=st.booleans()),
)
any_quantizer = st.one_of(
    with_zero, st.builds(CodebookQuantizer, st.integers(2, 6), axis=st.sampled_from([None, 0, 1]))
)
ordinary = st.integers(-(10**6), 10**6).map(lambda n: n / 10**4)  # nothing so small that squares vanish
dtypes = st.sampled_from([torch.float32, torch.float64])


@st.composite
def tensors(draw, elements=ordinary):
    channels, length = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    values = draw(st.lists(elements, min_size=channels * length, max_size=channels * length))
    return torch.tensor(values, dtype=draw(dtypes)).view(channels, length)


examples = settings(max_examples=60)


@examples
@given(any_quantizer, tensors())
def test_shape_and_dtype_stay_and_codes_stand_for_the_values(quantizer, weight):
    values, grid = quantizer(weight), quantizer.grid(weight)
    assert values.shape == weight.shape
    assert values.dtype == weight.dtype
    codes = quantizer.codes(weight)
    assert codes.dtype == torch.int32
    assert torch.equal(grid.dequantize(codes), values.detach())
    assert int(codes.max()) - int(codes.min()) < 2**grid.bits


@examples
@given(any_quantizer, tensors())
def test_rounding_twice_is_rounding_once(quantizer, weight):
    grid = quantizer.grid(weight)
    once = grid(weight)
    assert torch.equal(grid(once), once)


@examples
@given(st.integers(2, 16), st.sampled_from([None, 0]), tensors())
def test_without_clipping_the_grid_of_rounded_weights_is_the_same_grid(bits, axis, weight):
    quantizer = UniformQuantizer(bits, axis=axis)
    once = quantizer(weight)
    torch.testing.assert_close(quantizer(once), once, rtol=1e-6, atol=0)


@examples
@given(uniform, tensors())
def test_inside_the_range_the_error_is_at_most_half_a_step(quantizer, weight):
    grid = quantizer.grid(weight)
    low, high = (grid.dequantize(torch.full(weight.shape, code)) for code in (grid.lowest, grid.highest))
    step = (high - low) / (grid.highest - grid.lowest)
    inside = (weight >= low) & (weight <= high)
    assert ((grid(weight) - weight).abs()[inside] <= 0.501 * step[inside]).all()


@examples
@given(any_quantizer, tensors())
def test_order_is_kept(quantizer, weight):
    assume(
        not isinstance(quantizer, NF4Quantizer) or quantizer.block >= weight.numel()
    )  # order within a block
    row = weight.flatten().sort()[0][None]
    values = quantizer(row if getattr(quantizer, "axis", None) in (None, 0) else row.T)
    assert (values.flatten().diff() >= 0).all()


@examples
@given(with_zero, tensors(st.one_of(st.just(0.0), ordinary)))
def test_zero_stays_zero(quantizer, weight):
    assert (quantizer(weight)[weight == 0] == 0).all()


@examples
@given(any_quantizer, tensors(), st.randoms())
def test_the_order_of_channels_does_not_matter(quantizer, weight, random):
    assume(not isinstance(quantizer, LearnedStepQuantizer))  # the last bit of a mean depends on the order
    if isinstance(quantizer, NF4Quantizer):
        quantizer = NF4Quantizer(
            block=weight.shape[1]
        )  # a block that holds two channels does see their order
    order = random.sample(range(len(weight)), len(weight))
    assert torch.equal(quantizer(weight[order]), quantizer(weight)[order])


@examples
@given(any_quantizer, tensors(), st.integers(-20, 20))
def test_the_unit_does_not_matter(quantizer, weight, power):
    assume(getattr(quantizer, "format", "fp8").startswith("fp8"))  # fp16 and bf16 are what they are
    assert torch.equal(quantizer(weight * 2.0**power), quantizer(weight) * 2.0**power)


@examples
@given(st.integers(2, 8), tensors())
def test_a_symmetric_grid_is_symmetric(bits, weight):
    for quantizer in (UniformQuantizer(bits), UniformQuantizer(bits, clip="mse"), LearnedStepQuantizer(bits)):
        assert torch.equal(quantizer(-weight), -quantizer(weight))


@examples
@given(any_quantizer, st.sampled_from([torch.bfloat16, torch.float16]), tensors())
def test_half_precision_is_computed_in_single(quantizer, dtype, weight):
    weight = weight.to(dtype)
    assert torch.equal(quantizer(weight), quantizer(weight.float()).to(dtype))


def test_double_precision_is_computed_in_double():
    weight = normal(1000, dtype=torch.float64)
    weight[0] = 4.0
    step = 4 / 32767
    expected = torch.from_numpy(np.round(weight.numpy() / step) * step)
    torch.testing.assert_close(UniformQuantizer(16)(weight), expected, rtol=1e-14, atol=1e-14)


EACH = [
    UniformQuantizer(4),
    UniformQuantizer(16, clip="mse", axis=0),
    UniformQuantizer(4, clip="mse", symmetric=False),
    UniformQuantizer(4, clip="percentile"),
    UniformQuantizer(4, clip="percentile", symmetric=False),
    UniformQuantizer(2, narrow=False),
    UniformQuantizer(8, symmetric=False),
    CodebookQuantizer(3),
    CodebookQuantizer(3, axis=0),
    PowerOfTwoQuantizer(4),
    NF4Quantizer(),
    FloatQuantizer("fp16"),
    FloatQuantizer("fp8"),
    LearnedStepQuantizer(4),
]


@pytest.mark.parametrize("quantizer", EACH, ids=str)
class TestUnusualTensors:
    def test_zeros_stay(self, quantizer):
        assert torch.equal(quantizer(torch.zeros(3, 4)), torch.zeros(3, 4))

    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
    def test_empty_stays_empty(self, quantizer, shape):
        assert quantizer(torch.zeros(shape)).shape == shape

    def test_a_single_number_is_a_tensor_too(self, quantizer):
        if getattr(quantizer, "axis", None) is None:
            assert quantizer(torch.tensor(0.5)).item() == pytest.approx(0.5, rel=0.5)

    @pytest.mark.parametrize("constant", [0.3, -7.0])
    def test_constants_stay_within_the_coarseness_of_the_outermost_step(self, quantizer, constant):
        reaches = not isinstance(quantizer, PowerOfTwoQuantizer | LearnedStepQuantizer)
        clips = quantizer == UniformQuantizer(2, narrow=False) and constant > 0
        weight = torch.full((2, 5), constant)
        torch.testing.assert_close(
            quantizer(weight), weight, rtol=1e-3 if reaches and not clips else 0.5, atol=0
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_the_largest_numbers_do_not_overflow(self, quantizer, dtype):
        most = torch.finfo(dtype).max
        values = quantizer(torch.tensor([[-most, -most / 3, 0.0, most / 2, most]], dtype=dtype))
        assert torch.isfinite(values).all()
        assert (values[0].diff() >= 0).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_the_smallest_numbers_move_by_less_than_the_smallest_normal_one(self, quantizer, dtype):
        least = torch.finfo(dtype).smallest_normal
        weight = torch.tensor([[-least / 2, least / 4, 0.0, least * torch.finfo(dtype).eps]], dtype=dtype)
        values = quantizer(weight)
        assert torch.isfinite(values).all()
        assert ((values - weight).abs() <= least).all()

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_refused(self, quantizer, bad):
        for verb in (quantizer, quantizer.codes, quantizer.scale):
            with pytest.raises(BadInput, match="NaN or infinity"):
                verb(torch.tensor([[1.0, bad, 2.0]]))

    def test_whole_numbers_are_refused(self, quantizer):
        with pytest.raises(BadInput, match=r"torch.int64; expected floating point"):
            quantizer(torch.ones(3, dtype=torch.int64))


# ---------------------------------------------------------------- what the options mean


def test_two_bits_are_three_values_or_four():
    weight = normal(1000)
    assert UniformQuantizer(2).codes(weight).unique().tolist() == [-1, 0, 1]
    assert UniformQuantizer(2, narrow=False).codes(-weight.abs()).unique().tolist() == [-2, -1, 0]
    assert UniformQuantizer(2, narrow=False).codes(weight).unique().tolist() == [-2, -1, 0, 1]
    assert UniformQuantizer(2, symmetric=False).codes(weight).unique().tolist() == [0, 1, 2, 3]


def test_identity_passes_the_gradients_that_clipped_stops():
    weight, upstream = torch.tensor([-4.0, 0.1, 3.8, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    options = {"narrow": False, "bits": 3}  # steps of 1, from -4 to 3
    _, clipped = value_and_gradient(UniformQuantizer(**options), weight, upstream)
    _, identity = value_and_gradient(UniformQuantizer(**options, gradient="identity"), weight, upstream)
    assert clipped.tolist() == [1, 2, 0, 0]
    assert identity.tolist() == [1, 2, 3, 4]


def test_second_derivatives_pass_straight_through():
    weight = normal(20).requires_grad_()
    direction = normal(20, seed=1)
    values = UniformQuantizer(4, gradient="identity")(weight)
    (gradient,) = torch.autograd.grad((values**3).sum(), weight, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ direction, weight)
    torch.testing.assert_close(product, 6 * values.detach() * direction)


def test_functional_gradients_work():
    weight = normal(20)
    gradient = torch.func.grad(lambda w: (UniformQuantizer(3, narrow=False)(w) ** 2).sum())(weight)
    _, expected = value_and_gradient(
        lambda w: UniformQuantizer(3, narrow=False)(w) ** 2, weight, torch.ones(20)
    )
    assert torch.equal(gradient, expected)


def test_percentile_leaves_out_one_value_in_a_thousand():
    weight = torch.arange(1.0, 2001.0)
    assert UniformQuantizer(2, clip="percentile").scale(weight).item() == 1998
    affine = UniformQuantizer(2, clip="percentile", symmetric=False)
    assert affine.scale(torch.cat([-weight, weight])).item() == pytest.approx((1998 + 1998) / 3)


def test_channels_have_their_own_scale_along_any_axis():
    weight = normal(2, 3, 4) * torch.tensor([1.0, 10.0, 100.0])[:, None]
    for axis in (1, -2):
        quantizer = UniformQuantizer(4, axis=axis)
        assert quantizer.scale(weight).shape == (3,)
        for channel in range(3):
            assert torch.equal(quantizer(weight)[:, channel], UniformQuantizer(4)(weight[:, channel]))


def test_quantizers_are_values():
    assert UniformQuantizer(4) == UniformQuantizer(4, clip="absmax")
    assert len({UniformQuantizer(4), UniformQuantizer(4), UniformQuantizer(3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        UniformQuantizer(4).bits = 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: UniformQuantizer(1), "bits is 1; expected a whole number from 2 to 16"),
        (lambda: UniformQuantizer(17), "bits is 17"),
        (lambda: UniformQuantizer(4.0), "bits is 4.0"),
        (lambda: PowerOfTwoQuantizer(9), "bits is 9; expected a whole number from 2 to 8"),
        (lambda: LearnedStepQuantizer(1), "bits is 1"),
        (lambda: CodebookQuantizer(0), "bits is 0"),
        (lambda: UniformQuantizer(4, clip="max"), "clip is 'max'; choose absmax"),
        (lambda: UniformQuantizer(4, gradient="none"), "gradient is 'none'; choose identity or clipped"),
        (lambda: FloatQuantizer("fp4"), "format is 'fp4'; choose one of fp16, bf16"),
        (lambda: NF4Quantizer(block=0), "block is 0"),
        (lambda: UniformQuantizer(4, axis=2)(torch.ones(3, 3)), "axis is 2, the tensor has 2 axes"),
        (lambda: only_zero_bin(UniformQuantizer(4)).codes(torch.ones(3)), "half of an ablation has no codes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


@given(with_zero, tensors())
@examples
def test_the_two_halves_of_the_ablation_make_the_whole(quantizer, weight):
    zeroed, rounded, whole = (
        only_zero_bin(quantizer)(weight),
        all_but_zero_bin(quantizer)(weight),
        quantizer(weight),
    )
    lost = whole == 0
    assert torch.equal(zeroed, torch.where(lost, 0, weight))
    assert torch.equal(rounded, torch.where(lost, weight, whole))


# ---------------------------------------------------------------- models


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


IMAGES = normal(32, 3, 12, 12, seed=5)


def test_the_original_is_untouched_and_modes_stay():
    model = small_network().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    batches = [IMAGES]
    quantized = quantize_model(model, UniformQuantizer(2), activations=(UniformQuantizer(8), batches))
    for result in (quantized, bake(quantized), reestimate_batchnorm(quantized, batches)):
        assert [result[at].training for at in range(9)] == [True, False] + [True] * 7
        assert result[1].momentum == 0.1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("quantizer", EACH, ids=str)
def test_baked_weights_are_the_rounded_ones_and_plain(quantizer):
    model = small_network().eval()
    quantized = quantize_model(model, quantizer)
    baked = bake(quantized)
    assert baked.state_dict().keys() == model.state_dict().keys()
    for at in (0, 3, 8):
        assert torch.equal(baked[at].weight, quantizer(model[at].weight))
        assert isinstance(baked[at].weight, nn.Parameter)
        assert type(baked[at]) is type(model[at])
        assert torch.equal(baked[at].bias, model[at].bias)
    assert torch.equal(baked(IMAGES), quantized(IMAGES))
    assert describe(baked).equals(describe(quantized))
    assert storage_bytes(baked) == storage_bytes(quantized)
    assert bake(baked)[0].weight.equal(baked[0].weight)


def test_training_moves_the_free_weights_and_the_grid_follows():
    torch.manual_seed(0)
    inputs = normal(256, 6)
    labels = (inputs @ normal(6, 3, seed=1)).argmax(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    quantized = quantize_model(model, UniformQuantizer(2))
    optimizer = torch.optim.Adam(quantized.parameters(), lr=0.02)

    def loss():
        return nn.functional.cross_entropy(quantized(inputs), labels)

    start = float(loss().detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert float(loss().detach()) < 0.5 * start
    free = quantized[0].parametrizations.weight.original
    assert len(free.unique()) == free.numel()
    assert len(quantized[0].weight.unique()) == 3
    assert torch.equal(quantized[0].weight, UniformQuantizer(2)(free))


def test_learned_steps_are_parameters_of_their_own_and_learn():
    model = small_network()
    quantized = quantize_model(model, LearnedStepQuantizer(3, axis=0), first_last=8)
    steps = {name: step for name, step in quantized.named_parameters() if name.endswith("step")}
    assert [tuple(step.shape) for step in steps.values()] == [(8,), (8,), (5,)]
    assert describe(quantized)["bits"].tolist() == [8, 3, 8]
    before = [step.detach().clone() for step in steps.values()]
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.1)
    quantized(IMAGES).square().sum().backward()
    optimizer.step()
    assert all((step != old).all() for step, old in zip(steps.values(), before, strict=True))


def test_first_and_last_may_have_another_width():
    table = describe(quantize_model(small_network(), UniformQuantizer(3, axis=0), first_last=8))
    assert table["layer"].tolist() == ["0.weight", "3.weight", "8.weight"]
    assert table["bits"].tolist() == [8, 3, 8]
    halves = describe(quantize_model(small_network(), only_zero_bin(UniformQuantizer(2)), first_last=8))
    assert halves["zero_share"].iloc[1] > 5 * halves["zero_share"].iloc[0]
    with pytest.raises(BadInput, match=r"first_last is 8, but NF4Quantizer\(block=64\) has one width only"):
        quantize_model(small_network(), NF4Quantizer(), first_last=8)


def test_the_table_says_what_a_hand_finds():
    model = small_network()
    table = describe(quantize_model(model, UniformQuantizer(4, axis=0)))
    weight = model[3].weight.detach()
    values = UniformQuantizer(4, axis=0)(weight)
    row = table.iloc[1]
    assert row["shape"] == (8, 4, 3, 3)
    assert row["scale"] == pytest.approx((weight.abs().amax((1, 2, 3)) / 7).median().item())
    assert row["zero_share"] == pytest.approx((values == 0).float().mean().item())
    assert row["error"] == pytest.approx(((values - weight).norm() / weight.norm()).item())
    assert row["bytes"] == 8 * 4 * 3 * 3 / 2 + 8 * 4


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (UniformQuantizer(3), 38 + 4),  # 100 codes of three bits are 37.5 bytes
        (UniformQuantizer(4, symmetric=False), 50 + 6),
        (UniformQuantizer(4, axis=0), 50 + 4 * 4),
        (NF4Quantizer(block=32), 50 + 4 * 4),
        (CodebookQuantizer(2), 25 + 4 * 4),
        (CodebookQuantizer(2, axis=0), 25 + 4 * 4 * 4),
        (PowerOfTwoQuantizer(4), 50 + 4),
        (FloatQuantizer("fp16"), 200),
        (FloatQuantizer("fp8"), 104),
        (LearnedStepQuantizer(4), 54),
        (only_zero_bin(UniformQuantizer(4)), 400),
    ],
    ids=str,
)
def test_storage_counts_codes_scales_zero_points_and_tables(quantizer, expected):
    layer = nn.Linear(25, 4)
    assert storage_bytes(quantize_model(layer, quantizer)) == expected + 16
    assert storage_bytes(layer) == 416


def test_zeros_are_counted_by_layer_and_in_total():
    model = small_network()
    model[8].weight.data[:] = 0
    shares = zero_share(model)
    assert shares.to_dict() == pytest.approx({"0.weight": 0, "3.weight": 0, "8.weight": 1, "total": 40 / 544})
    baked = bake(quantize_model(model, UniformQuantizer(2)))
    zeros = sum(int((baked[at].weight == 0).sum()) for at in (0, 3, 8))
    assert zero_share(baked)["total"] == pytest.approx(zeros / 544)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.middle(self.embedding(tokens)))


def test_a_tied_weight_is_one_weight():
    quantizer = UniformQuantizer(3, clip="percentile", narrow=False)  # rounding twice would show
    model = Tied()
    quantized = quantize_model(model, quantizer, first_last=8)
    assert describe(quantized)["bits"].tolist() == [8, 3]
    baked = bake(quantized)
    assert baked.head.weight is baked.embedding.weight
    assert torch.equal(baked.head.weight, dataclasses.replace(quantizer, bits=8)(model.head.weight))
    tokens = torch.arange(7)
    assert torch.equal(baked(tokens), quantized(tokens))
    quantized(tokens).sum().backward()
    assert (
        quantized.head.parametrizations.weight.original
        is quantized.embedding.parametrizations.weight.original
    )
    learned = quantize_model(model, LearnedStepQuantizer(4))
    assert sum(name.endswith("step") for name, _ in learned.named_parameters()) == 2


@pytest.mark.parametrize("separate", [False, True])
def test_attention_projections_are_quantized(separate):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True, kdim=6 if separate else None)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"] if separate else ["in_proj_weight"]
    quantized = quantize_model(attention, UniformQuantizer(3))
    assert describe(quantized)["layer"].tolist() == [*names, "out_proj.weight"]
    query, key = normal(2, 5, 8), normal(2, 5, 6 if separate else 8, seed=1)
    by_hand = copy.deepcopy(attention)
    for parameter in [getattr(by_hand, name) for name in names] + [by_hand.out_proj.weight]:
        parameter.data = UniformQuantizer(3)(parameter.data)
    inputs = (query, key, normal(2, 5, 8, seed=2))
    torch.testing.assert_close(quantized(*inputs)[0], by_hand(*inputs)[0])
    torch.testing.assert_close(bake(quantized)(*inputs)[0], by_hand(*inputs)[0])


def test_the_fast_path_of_a_transformer_sees_rounded_weights_and_inputs():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    inputs = normal(2, 5, 8)
    quantized = quantize_model(layer, UniformQuantizer(3))
    with torch.no_grad():
        fast = quantized(inputs)
    torch.testing.assert_close(
        fast, quantized.train(False)(inputs.clone().requires_grad_()), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(fast, layer(inputs), atol=1e-3)

    rounded = quantize_model(layer, None, activations=(UniformQuantizer(2), [inputs]))
    with torch.no_grad():
        assert not torch.allclose(rounded(inputs), layer(inputs), atol=1e-3)
    assert "self_attn.input" in describe(rounded)["layer"].tolist()


def test_inputs_are_rounded_on_the_range_of_the_calibration():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    batches = [torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[-1.0, 0.5, 0.2, 0.1]])]
    quantizer = UniformQuantizer(4, symmetric=False)
    quantized = quantize_model(model, None, activations=(quantizer, iter(batches)))
    table = describe(quantized).set_index("layer")
    assert table.loc["0.input", "scale"] == pytest.approx(4 / 15)  # -1 to 3, over both batches
    assert table.index.tolist() == ["0.input", "2.input"]

    inputs = torch.tensor([[5.0, -3.0, 0.3, 0.0]])  # beyond the range: clipped to it
    grid = quantizer.grid(torch.cat(batches))
    expected = model[0](grid(inputs))
    torch.testing.assert_close(quantized[0](inputs), expected)
    hidden = quantizer.grid(torch.cat([model[:2](batch) for batch in batches]))
    torch.testing.assert_close(quantized(inputs), model[2](hidden(model[1](expected))))

    leaf = inputs.clone().requires_grad_()
    quantized[0](leaf).sum().backward()
    assert (leaf.grad[0, :2] == 0).all()  # what is clipped receives no gradient
    assert (leaf.grad[0, 2:] != 0).all()
    restored = copy.deepcopy(quantized).double()
    assert torch.allclose(restored(inputs.double()).float(), quantized(inputs), atol=1e-5)


def test_weights_and_inputs_are_rounded_together_and_survive_baking():
    model = small_network().eval()
    quantized = quantize_model(model, UniformQuantizer(4), activations=(UniformQuantizer(4), [IMAGES]))
    assert describe(quantized)["layer"].tolist() == [
        *("0.weight", "3.weight", "8.weight"),
        *("0.input", "3.input", "8.input"),
    ]
    baked = bake(quantized)
    assert torch.equal(baked(IMAGES), quantized(IMAGES))
    weights_only = bake(quantize_model(model, UniformQuantizer(4)))
    assert not torch.allclose(baked(IMAGES), weights_only(IMAGES), atol=1e-4)
    assert storage_bytes(baked) == storage_bytes(weights_only) + 3 * 4
    inputs_later = quantize_model(weights_only, None, activations=(UniformQuantizer(4), [IMAGES]))
    assert describe(inputs_later).equals(describe(baked))


class Reaching(nn.Module):
    def __init__(self):
        super().__init__()
        self.reached, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, inputs):
        return self.reached(input=inputs)


def test_layers_that_calibration_does_not_reach_keep_their_inputs():
    model = Reaching()
    quantized = quantize_model(model, None, activations=(UniformQuantizer(4), [normal(2, 3)]))
    assert describe(quantized)["layer"].tolist() == ["reached.input"]
    inputs = normal(2, 3, seed=1)
    assert torch.equal(quantized.spare(inputs), model.spare(inputs))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: quantize_model(nn.ReLU(), UniformQuantizer(4)), "has no convolution, linear layer"),
        (
            lambda: quantize_model(quantize_model(small_network(), UniformQuantizer(4)), UniformQuantizer(4)),
            "quantized or parametrized already; bake it",
        ),
        (lambda: describe(small_network()), "nothing in the model is quantized"),
        (
            lambda: quantize_model(small_network(), None, activations=(UniformQuantizer(4), [])),
            "give at least one batch",
        ),
        (
            lambda: quantize_model(
                small_network(), None, activations=(UniformQuantizer(4, axis=1), [IMAGES])
            ),
            "expected a UniformQuantizer with axis=None, or 0",
        ),
        (lambda: reestimate_batchnorm(small_network(), []), "give at least one batch"),
    ],
)
def test_models_that_cannot_be_quantized_are_refused_in_one_sentence(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


def test_a_network_with_broken_weights_is_refused():
    model = small_network()
    model[3].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(BadInput, match="NaN or infinity"):
        quantize_model(model, UniformQuantizer(4))


def test_weights_that_diverge_in_training_give_a_nan_loss_and_no_wait():
    quantized = quantize_model(nn.Linear(3, 2), UniformQuantizer(4))
    quantized.parametrizations.weight.original.data[0, 0] = math.nan
    assert quantized(torch.ones(1, 3)).isnan().any()


def test_batchnorm_statistics_are_those_of_torchs_own_update():
    model = small_network().eval()
    batches = list(IMAGES.split(8))
    expected = copy.deepcopy(model)
    torch.optim.swa_utils.update_bn(batches, expected)
    found = reestimate_batchnorm(model, batches)
    for at in (1, 4):
        torch.testing.assert_close(found[at].running_mean, expected[at].running_mean)
        torch.testing.assert_close(found[at].running_var, expected[at].running_var)


def test_a_short_last_batch_weighs_less():
    model = nn.BatchNorm1d(1)
    inputs = normal(10, 1)
    found = reestimate_batchnorm(model, inputs.split(8))
    torch.testing.assert_close(found.running_mean, inputs.mean(0))


def test_dropout_is_off_while_batchnorm_is_reestimated():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3)).train()
    inputs = normal(64, 3) + 1
    torch.testing.assert_close(reestimate_batchnorm(model, [inputs])[1].running_mean, inputs.mean(0))


def test_reestimation_repairs_the_statistics_of_a_quantized_network():
    quantized = quantize_model(reestimate_batchnorm(small_network().eval(), [IMAGES]), UniformQuantizer(2))
    baked = bake(quantized)
    with torch.no_grad():
        stale, fresh = (m[:2](IMAGES) for m in (baked, reestimate_batchnorm(baked, [IMAGES])))
    assert (fresh.std((0, 2, 3)) - 1).abs().max() < 0.01
    assert (stale.std((0, 2, 3)) - 1).abs().max() > 0.05


def test_a_quantized_model_saves_and_loads_by_its_state():
    quantized = quantize_model(
        small_network(), LearnedStepQuantizer(4), activations=(UniformQuantizer(8), [IMAGES])
    )
    other = small_network()
    nn.init.normal_(other[0].weight)
    loaded = quantize_model(other, LearnedStepQuantizer(4), activations=(UniformQuantizer(8), [IMAGES * 2]))
    loaded.load_state_dict(quantized.state_dict())
    assert torch.equal(loaded.eval()(IMAGES), quantized.eval()(IMAGES))


def test_a_whole_resnet_is_quantized():
    model = resnet18(num_classes=5)
    baked = bake(quantize_model(model, UniformQuantizer(4), first_last=8))
    table = describe(baked)
    assert table["bits"].tolist() == [8, *[4] * 19, 8]
    assert len(baked.layer4[1].conv2.weight.unique()) <= 15
    assert storage_bytes(baked) == pytest.approx(storage_bytes(model) / 8, rel=0.02)
