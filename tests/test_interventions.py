"""Each intervention changes what it says, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import nn
from torch.ao.quantization import HistogramObserver, MinMaxObserver
from torch.nn import functional

from fairq_utils.data import sources
from fairq_utils.errors import BadInput
from fairq_utils.metrics.shares import FLIP_PARTS, margins, over_orders, why_flips_differ
from fairq_utils.quantization.alignment import Aligned, align
from fairq_utils.quantization.controls import coarser, only_clip, only_round
from fairq_utils.quantization.models import describe, quantize_model, weight_parameters
from fairq_utils.quantization.outliers import reach, scale_outliers
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.training.architectures import build
from fairq_utils.training.loop import predict, to_input
from fairq_utils.treatments.ablations import Ablation, layers
from fairq_utils.treatments.decomposition import decompose, taken_apart, undone
from fairq_utils.treatments.treatment import FP32, Treatment


@pytest.fixture(scope="module")
def moths():
    return sources.load("moths", train_images=300, test_images=60)


@pytest.fixture(scope="module")
def network(moths):
    """A small residual network whose batch norms know the moths."""
    torch.manual_seed(0)
    network = build("resnet18-4", classes=5)
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(to_input(moths.images[moths.is_train]))
    return network.eval()


def treated(name: str, network: nn.Module, moths) -> nn.Module:
    return Treatment.parse(name).apply(network, moths)


def logits(network: nn.Module, moths) -> torch.Tensor:
    return predict(network, moths.images[moths.is_test])


def same(one: nn.Module, other: nn.Module) -> list[str]:
    """The names of parameters and statistics that differ."""
    ours, theirs = one.state_dict(), other.state_dict()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


# ---------------------------------------------------------------- clipping and rounding


weights = st.integers(0, 2**31).map(
    lambda seed: torch.randn(6, 40, generator=torch.Generator().manual_seed(seed))
)


@given(
    weights,
    st.sampled_from(["mse", "percentile", "absmax"]),
    st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([None, 0]),
)
def test_what_is_clipped_and_then_rounded_is_what_the_quantizer_gives(weight, clip, bits, axis):
    quantizer = UniformQuantizer(bits, clip=clip, axis=axis)
    grid = quantizer.grid(weight)
    clipped = only_clip(quantizer)(weight)
    assert torch.equal(grid(clipped), quantizer(weight))
    free = (weight / grid._along(grid.scale, weight)).abs() <= 2 ** (bits - 1) - 1
    assert torch.allclose(clipped[free], weight[free], rtol=1e-6)  # at the very end, but for its last bit
    rounded = only_round(quantizer)(weight)
    steps = rounded / grid._along(grid.scale, weight)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert ((rounded - weight).abs() <= grid._along(grid.scale, weight) * 0.5001).all()
    if clip == "absmax":
        assert torch.allclose(clipped, weight, rtol=1e-6)
        assert torch.equal(rounded, quantizer(weight))


def test_an_affine_range_is_cut_off_at_both_of_its_ends():
    quantizer = UniformQuantizer(3, symmetric=False, clip="percentile")
    weight = torch.cat([torch.linspace(-1, 3, 4000), torch.tensor([-9.0, 9.0, -8.0, 8.0])])
    clipped = only_clip(quantizer)(weight)
    assert clipped.min() > -2
    assert clipped.max() < 4
    assert set(clipped[4000:].tolist()) == {clipped.min().item(), clipped.max().item()}


def test_coarser_steps_are_so_many_times_as_wide():
    weight = torch.randn(50, generator=torch.Generator().manual_seed(1))
    plain, wide = UniformQuantizer(4), coarser(UniformQuantizer(4), 3)
    assert wide.scale(weight) == 3 * plain.scale(weight)
    assert torch.allclose(wide(weight), (weight / wide.scale(weight)).round() * wide.scale(weight))
    assert torch.equal(coarser(UniformQuantizer(4), 1)(weight), plain(weight))
    with pytest.raises(BadInput, match="expected a symmetric one"):
        coarser(UniformQuantizer(4, symmetric=False), 2)


# ---------------------------------------------------------------- the same function on another grid


@pytest.mark.parametrize("factor", [2, 3, 16])
@pytest.mark.parametrize("arch", ["resnet18-4", "efficientnet_b0-8"])
def test_a_network_with_louder_channels_computes_the_same_function(arch, factor, moths):
    torch.manual_seed(2)
    network = build(arch, classes=5).eval()
    louder = scale_outliers(network, factor)
    images = to_input(moths.images[:40])
    assert torch.allclose(louder(images), network(images), rtol=1e-3, atol=1e-4)
    assert same(louder, network)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_the_step_of_a_tensor_becomes_exactly_so_many_times_as_wide(network, factor):
    louder = scale_outliers(network, factor)
    before, after = (
        describe(quantize_model(one, UniformQuantizer(4))).set_index("layer") for one in (network, louder)
    )
    convolutions = [name for name in before.index if name != "fc.weight"]
    assert (after.loc[convolutions, "scale"] == factor * before.loc[convolutions, "scale"]).all()
    assert after.loc["fc.weight", "scale"] == before.loc["fc.weight", "scale"]


def test_all_other_channels_are_rounded_as_by_the_coarser_control(network, moths):
    louder, control = treated("int4-scaled4", network, moths), treated("int4-coarser4", network, moths)
    plain = treated("int4", network, moths)
    for name in layers(network):
        ours, theirs, own = (one.get_parameter(name).flatten(1) for one in (louder, control, plain))
        if name == "fc.weight":
            continue
        outlying = network.get_parameter(name).flatten(1).abs().amax(1).argmax()
        others = torch.arange(len(ours)) != outlying
        assert torch.equal(ours[others], theirs[others])
        assert torch.equal(ours[outlying], 4 * own[outlying])


def test_a_grid_for_each_channel_does_not_see_it(network, moths):
    louder, plain = treated("int4-channel-scaled8", network, moths), treated("int4-channel", network, moths)
    assert torch.allclose(logits(louder, moths), logits(plain, moths), rtol=1e-3, atol=1e-4)
    tensor, coarse = treated("int4", network, moths), treated("int4-scaled8", network, moths)
    assert not torch.allclose(logits(tensor, moths), logits(coarse, moths), rtol=1e-3, atol=1e-4)


def test_networks_without_such_channels_and_factors_that_are_none_are_refused(network):
    with pytest.raises(BadInput, match="no convolution that only a batch norm follows"):
        scale_outliers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 2)
    with pytest.raises(BadInput, match=r"factor is 0\.5; expected a whole number"):
        scale_outliers(network, 0.5)

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(BadInput, match="cannot be traced"):
        scale_outliers(Branching(), 2)


def test_a_convolution_that_something_else_reads_too_stays_as_it_is():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.second, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.first(x)
            return self.other(self.second(self.norm(x) + x))

    torch.manual_seed(0)
    network = Forked().eval()
    louder = scale_outliers(network, 4)
    assert torch.equal(louder.first.weight, network.first.weight)
    assert not torch.equal(louder.second.weight, network.second.weight)


def test_reach_is_the_largest_weight_in_standard_deviations(network):
    found = reach(network)
    for place in weight_parameters(network):
        weight = place.original.detach().numpy()
        assert found[place.name] == pytest.approx(np.abs(weight).max() / weight.std(), rel=1e-4)
    louder = reach(scale_outliers(network, 16))
    assert (louder.drop("fc.weight") > found.drop("fc.weight")).all()


# ---------------------------------------------------------------- temperature and offsets


def some_logits(seed: int, images: int = 200, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    reference = 3 * torch.randn(images, classes, generator=random)
    own = (
        0.4 * reference + 0.5 * torch.randn(images, classes, generator=random) + torch.tensor([1.0, 0, -1, 0])
    )
    return own, reference


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("temperature", "offsets"), [(True, False), (False, True), (True, True)])
def test_alignment_is_the_minimum_that_scipy_finds(seed, temperature, offsets):
    own, reference = some_logits(seed)
    wanted = reference.double().softmax(1)

    def divergence(inverse: float, shift: np.ndarray) -> float:
        return float(functional.cross_entropy((own.double() + torch.tensor(shift)) * inverse, wanted))

    shift, inverse, options = np.zeros(4), 1.0, {"method": "BFGS", "options": {"gtol": 1e-8}}
    if offsets:
        shift = optimize.minimize(lambda values: divergence(1.0, values), shift, **options).x
    if temperature:
        inverse = optimize.minimize(lambda values: divergence(values[0], shift), [1.0], **options).x[0]
    found = align(own, reference, temperature=temperature, offsets=offsets)
    assert 1 / found.temperature == pytest.approx(inverse, rel=1e-4)
    assert found.offsets.tolist() == pytest.approx(shift - shift.mean(), abs=1e-4)
    if offsets and not temperature:
        # each class is then as probable, on average, as it is for the reference
        assert torch.allclose(found(own).double().softmax(1).mean(0), wanted.mean(0), atol=1e-6)


def test_nothing_is_done_to_what_is_the_reference_already():
    own, _ = some_logits(0)
    found = align(own, own, temperature=True, offsets=True)
    assert found.temperature == pytest.approx(1, abs=1e-6)
    assert found.offsets.abs().max() < 1e-6


def test_of_logits_that_say_the_opposite_something_is_left():
    own, reference = some_logits(0)
    found = align(-reference, reference, temperature=True, offsets=True)
    assert 0 < found.temperature <= 100
    with pytest.raises(BadInput, match="expected the same images and classes in both"):
        align(own, reference[:, :2])


def test_a_temperature_changes_no_answer_and_an_offset_nothing_but_logits(network, moths):
    """Nor does a temperature where there are offsets."""
    rounded = treated("int3", network, moths)
    before = logits(rounded, moths)
    heated = treated("int3-temperature", network, moths)
    assert isinstance(heated, Aligned)
    assert torch.equal(logits(heated, moths).argmax(1), before.argmax(1))
    assert not same(heated.network, rounded)
    assert torch.allclose(logits(heated, moths) * heated.temperature, before, atol=1e-5)
    offset = treated("int3-offsets", network, moths)
    assert not same(offset.network, rounded)
    assert torch.allclose(logits(offset, moths) - offset.offsets, before, atol=1e-5)
    both = treated("int3-temperature-offsets", network, moths)
    assert torch.equal(both.offsets, offset.offsets)
    assert torch.equal(logits(both, moths).argmax(1), logits(offset, moths).argmax(1))


def test_they_are_fitted_on_the_tuning_part_to_the_network_before(network, moths):
    images = moths.images[moths.is_tuning]
    rounded = treated("int3", network, moths)
    found = align(predict(rounded, images), predict(network, images), temperature=True, offsets=True)
    both = treated("int3-temperature-offsets", network, moths)
    assert both.temperature.item() == pytest.approx(found.temperature)
    assert torch.allclose(both.offsets, found.offsets)


@pytest.mark.parametrize("name", ["fp32-temperature", "fp32-offsets", "fp32-temperature-offsets"])
def test_in_full_precision_they_do_nothing(name, network, moths):
    assert torch.allclose(logits(treated(name, network, moths), moths), logits(network, moths), atol=1e-5)


# ---------------------------------------------------------------- whose images statistics are of


@pytest.mark.parametrize("whose", ["balanced", "majority", "smallest", None])
def test_statistics_are_of_those_whose_images_were_named(whose, moths):
    identity = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)).eval()
    identity[0].weight.data.copy_(torch.eye(3)[:, :, None, None])
    grey = (50 * moths.groups)[:, None, None, None].expand(-1, 3, 8, 8).to(torch.uint8)
    plain = replace(moths, images=grey.contiguous())
    name = "fp32-bn" if whose is None else f"fp32-bn-{whose}"
    found = treated(name, identity, plain)[1].running_mean
    sizes = torch.bincount(moths.groups[moths.is_train])
    shares = {
        "balanced": torch.ones(5) / 5,
        "majority": functional.one_hot(sizes.argmax(), 5).float(),
        "smallest": functional.one_hot(sizes.argmin(), 5).float(),
        None: sizes / sizes.sum(),
    }[whose]
    expected = float((shares * (50 * torch.arange(5) / 63.75 - 2)).sum())
    assert found.tolist() == pytest.approx([expected] * 3, abs=1e-3)


def test_augmented_images_are_moved_and_mirrored_and_the_same_each_time(network, moths):
    plain, moved = treated("int4-bn", network, moths), treated("int4-bn-augmented", network, moths)
    differ = same(plain, moved)
    assert differ
    assert all("running" in name or "tracked" in name for name in differ)
    assert not same(moved, treated("int4-bn-augmented", network, moths))


# ---------------------------------------------------------------- activations


def test_the_range_of_inputs_is_that_of_torchs_observer():
    inputs = torch.randn(300, 20, generator=torch.Generator().manual_seed(0)).relu() * 3
    layer = nn.Linear(20, 4)
    for bits in (8, 4):
        rounded = quantize_model(layer, None, activations=(UniformQuantizer(bits, symmetric=False), [inputs]))
        observer = MinMaxObserver(quant_min=0, quant_max=2**bits - 1, dtype=torch.quint8)
        observer(inputs)
        scale, zero = observer.calculate_qparams()
        theirs = torch.fake_quantize_per_tensor_affine(inputs, float(scale), int(zero), 0, 2**bits - 1)
        assert torch.allclose(rounded.input_quantizer(inputs), theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore:must run observer")
def test_the_range_with_the_least_error_is_no_worse_than_torchs():
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(4000, 16, generator=random) * torch.rand(4000, 1, generator=random).pow(4) * 9
    layer = nn.Linear(16, 4)
    searched = UniformQuantizer(4, symmetric=False, clip="mse")
    ours = quantize_model(layer, None, activations=(searched, [inputs])).input_quantizer(inputs)
    observer = HistogramObserver(quant_min=0, quant_max=15, dtype=torch.quint8)
    observer(inputs)
    scale, zero = observer.calculate_qparams()
    theirs = torch.fake_quantize_per_tensor_affine(inputs, float(scale), int(zero), 0, 15)
    assert (ours - inputs).square().mean() <= 1.01 * (theirs - inputs).square().mean()


def test_a_percentile_leaves_out_a_thousandth_of_the_inputs():
    inputs = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    quantizer = UniformQuantizer(8, symmetric=False, clip="percentile")
    rounded = quantize_model(nn.Linear(50, 2), None, activations=(quantizer, [inputs])).input_quantizer
    outside = ((inputs < rounded.low) | (inputs > rounded.high)).float().mean()
    assert outside == pytest.approx(0.001, rel=0.3)  # told by 65,536 of 100,000 values or a few more


def test_a_dynamic_range_is_each_images_own_and_needs_no_other(network, moths):
    inputs = (
        torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)[:, None, None]
    )
    quantizer = UniformQuantizer(4, symmetric=False, axis=0)
    rounded = quantize_model(nn.Linear(4, 2), None, activations=(quantizer, [inputs[:1]])).input_quantizer
    for image, found in zip(inputs, rounded(inputs), strict=True):
        low, high = min(image.min().item(), 0), max(image.max().item(), 0)
        scale = (high - low) / 15
        theirs = torch.fake_quantize_per_tensor_affine(image, scale, round(-low / scale), 0, 15)
        assert torch.allclose(found, theirs, atol=1e-5)
    dynamic = treated("a4-dynamic", network, moths)
    images = to_input(moths.images[moths.is_test][:20])
    assert torch.allclose(dynamic(images)[:3], dynamic(images[:3]), atol=1e-4)
    assert describe(dynamic)["scale"].isna().all()
    with pytest.raises(BadInput, match="The range is dynamic"):
        rounded.grid()


@pytest.mark.parametrize("name", ["a4", "a4-amse", "a4-apercentile", "a4-dynamic", "a4-balanced"])
def test_rounding_inputs_touches_no_weight(name, network, moths):
    rounded = treated(name, network, moths)
    own = rounded.state_dict()
    assert all(torch.equal(own[key], value) for key, value in network.state_dict().items())
    assert not torch.equal(logits(rounded, moths), logits(network, moths))


# ---------------------------------------------------------------- the largest weights


def test_as_much_length_goes_among_the_largest_weights(network):
    emptied = Ablation(Treatment(3), "zeros").apply(network)
    largest = Ablation(Treatment(3), "largest").apply(network)
    for name in layers(network):
        weight, ours = network.get_parameter(name).detach().double(), largest.get_parameter(name).detach()
        taken = (weight - emptied.get_parameter(name)).square().sum()
        gone = ours == 0
        assert weight[gone].square().sum() <= taken * (1 + 1e-6)
        if gone.any():
            assert weight[gone].abs().min() >= weight[~gone].abs().max()
        assert gone.sum() <= (emptied.get_parameter(name) == 0).sum()


@pytest.mark.parametrize("kind", ["norm", "largest", "midrise"])
def test_a_control_is_put_right_as_the_treatment_is(kind, network, moths):
    alone = Ablation(Treatment(3), kind).apply(network, moths)
    renewed = Ablation(Treatment.parse("int3-bn"), kind).apply(network, moths)
    differ = same(alone, renewed)
    assert differ
    assert all("running" in name or "tracked" in name for name in differ)
    assert not same(renewed, Treatment.parse("fp32-bn").apply(alone, moths))
    offset = Ablation(Treatment.parse("int3-offsets"), kind).apply(network, moths)
    tuning = moths.images[moths.is_tuning]
    found = align(predict(alone, tuning), predict(network, tuning), offsets=True)
    assert torch.allclose(offset.offsets, found.offsets)
    with pytest.raises(BadInput, match="treatment is int3-scaled2; expected one that rounds"):
        Ablation(Treatment.parse("int3-scaled2"), kind)


# ---------------------------------------------------------------- words that contradict


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int4-qat-temperature", "there is no network before that to align with"),
        ("int4-qat-clipped", "takes rounding apart"),
        ("int4-affine-coarser2", "that are not plain"),
        ("int4-amse", "says how inputs are rounded, to no width"),
        ("int4-balanced", "but not what is taken of them"),
        ("nf4-clipped", "which nf4 does not take"),
        ("int4-scaled0", "is not understood"),
    ],
)
def test_words_that_contradict_each_other_are_refused(name, said):
    with pytest.raises(BadInput, match=said):
        Treatment.parse(name)


# ---------------------------------------------------------------- taken apart


def test_the_parts_of_a_change_sum_to_it_and_are_those_of_all_orders():
    names = [one.name for one in (*undone(Treatment(4)), *undone(FP32))]
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        [(name, seed, group, random.random()) for name in names for seed in (1, 2) for group in "ab"],
        columns=["treatment", "seed", "group", "accuracy"],
    )
    found = taken_apart(table, Treatment(4))
    assert (
        found.groupby(["seed", "group"])["part"].apply(list).tolist()
        == [["batchnorm", "offsets", "temperature", "rest"]] * 4
    )
    of = table.set_index(["treatment", "seed", "group"])["accuracy"]
    for (seed, group), own in found.groupby(["seed", "group"]):
        change = of["int4", seed, group] - of["fp32", seed, group]
        assert own["share"].sum() == pytest.approx(change)
        assert own["change"].tolist() == pytest.approx([change] * 4)
        assert (own["least"] <= own["share"] + 1e-12).all()
        assert (own["share"] <= own["most"] + 1e-12).all()
    # By hand, over the six orders: what batch norm gives back where nothing, one other, or both are undone.
    given_back = []
    for others, weight in [("", 2), ("offsets", 1), ("temperature", 1), ("temperature-offsets", 2)]:

        def at(base: str, words: list[str]) -> float:
            return of["-".join([base, *filter(None, words)]), 1, "a"]

        with_, without = ["bn", others], [others]
        lost = (at("int4", with_) - at("fp32", with_)) - (at("int4", without) - at("fp32", without))
        given_back += [-lost] * weight
    (ours,) = found.query("seed == 1 and group == 'a' and part == 'batchnorm'")["share"]
    assert ours == pytest.approx(np.mean(given_back))
    with pytest.raises(BadInput, match="The table has no fp32-bn"):
        taken_apart(table[table["treatment"] != "fp32-bn"], Treatment(4))


def test_a_network_of_ones_own_is_taken_apart(network, moths):
    parts = decompose(network, Treatment(3), moths)
    for (measure, _), own in parts.groupby(["measure", "group"]):
        assert own["share"].sum() == pytest.approx(own["change"].iloc[0])
        if measure == "accuracy":
            heated = own[own["part"] == "temperature"]  # which changes no answer, in whatever order
            assert heated[["share", "least", "most"]].abs().to_numpy().max() == 0
    before, after = (
        (logits(one, moths).argmax(1) == moths.labels[moths.is_test]).numpy()
        for one in (network, treated("int3", network, moths))
    )
    groups = moths.groups[moths.is_test].numpy()
    for place, name in enumerate(moths.group_names):
        chosen = parts[(parts["measure"] == "accuracy") & (parts["group"] == name)]
        change = after[groups == place].mean() - before[groups == place].mean()
        assert chosen["change"].iloc[0] == pytest.approx(change)


def test_steps_that_are_none_are_refused():
    with pytest.raises(BadInput, match="steps say 'heat'"):
        undone(Treatment(4), ["heat"])
    with pytest.raises(BadInput, match="expected one to six names"):
        over_orders([], lambda taken: 0.0)


def test_shares_of_what_simply_adds_up_do_not_depend_on_the_order():
    worth = {"a": 1.0, "b": -2.0, "c": 0.5}
    found = over_orders(list(worth), lambda taken: sum(worth[step] for step in taken))
    for step, share in found.items():
        assert [share.mean, share.least, share.most] == pytest.approx([worth[step]] * 3)


# ---------------------------------------------------------------- why answers flip


@pytest.mark.parametrize("part", FLIP_PARTS)
def test_the_part_that_differs_has_the_share(part):
    random = np.random.default_rng(5)
    count = 40_000
    groups = np.repeat([0, 1], count)
    margin = np.abs(random.normal(size=2 * count)) * 2
    change = 0.7 * random.normal(size=2 * count)
    second = groups == 1
    if part == "margins":
        margin[second] /= 2
    elif part == "spread":
        change[second] *= 2
    else:
        change[second] -= 0.7
    found = why_flips_differ(margin, change, groups, 0, 1).set_index("part")["share"]
    flipped = margin + change < 0
    assert found.sum() == pytest.approx(flipped[second].mean() - flipped[~second].mean())
    assert found[part] > 0.04
    assert found.drop(part).abs().max() < 0.01


def test_margins_are_of_the_two_classes_that_led():
    before = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])
    after = torch.tensor([[1.0, 9.0, 2.0], [0.0, 4.0, 1.0]])
    margin, change = margins(before, after)
    assert margin.tolist() == [0.5, 3.0]
    assert change.tolist() == [-1.5, 0.0]
    with pytest.raises(BadInput, match="expected the same images"):
        margins(before, after[:1])
    with pytest.raises(BadInput, match="fewer than two images"):
        why_flips_differ(margin, change, np.array([0, 1]), 0, 1)
