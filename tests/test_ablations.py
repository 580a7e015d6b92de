import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_utils.data.splits import of_each
from fairq_utils.errors import BadInput
from fairq_utils.treatments import ablations
from fairq_utils.treatments.ablations import Ablation, layers, midrise
from fairq_utils.treatments.treatment import FP32, Treatment

INT3 = Treatment(3)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 3), nn.Linear(32, 5))


def zeros(network: nn.Module) -> list[int]:
    return [int((network.get_parameter(name) == 0).sum()) for name in layers(network)]


def test_zeros_are_those_of_the_treatment_that_only_empties_the_bin(network):
    ours = Ablation(INT3, "zeros").apply(network)
    theirs = Treatment.parse("int3-zeros").apply(network, None)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert min(zeros(ours)) > 0
    assert max(zeros(network)) == 0


def test_at_random_as_many_go_of_each_tensor_but_others(network):
    emptied, random = (Ablation(INT3, kind).apply(network) for kind in ("zeros", "random"))
    assert zeros(random) == zeros(emptied)
    for name in layers(network):
        gone = network.get_parameter(name).abs()[random.get_parameter(name) == 0]
        kept = network.get_parameter(name).abs()[emptied.get_parameter(name) != 0]
        assert gone.max() > kept.min()
    again = Ablation(INT3, "random").apply(network)
    assert all(torch.equal(a, b) for a, b in zip(random.parameters(), again.parameters(), strict=True))


def test_by_norm_as_much_goes_of_each_tensor(network):
    def taken(changed: nn.Module, name: str) -> float:
        change = changed.get_parameter(name) - network.get_parameter(name)
        return float(change.detach().double().square().sum())

    emptied, normed = (Ablation(INT3, kind).apply(network) for kind in ("zeros", "norm"))
    for name in layers(network):
        most = float(network.get_parameter(name).detach().square().max())
        assert taken(emptied, name) - most <= taken(normed, name) <= taken(emptied, name) * (1 + 1e-6)
    assert sum(zeros(normed)) < sum(zeros(emptied))


def test_globally_as_many_go_and_they_are_the_smallest(network):
    emptied, fallen = (Ablation(INT3, kind).apply(network) for kind in ("zeros", "global"))
    assert sum(zeros(fallen)) == sum(zeros(emptied))
    before = torch.cat([network.get_parameter(name).flatten().abs() for name in layers(network)])
    after = torch.cat([fallen.get_parameter(name).flatten() for name in layers(network)])
    assert before[after == 0].max() <= before[after != 0].min()


def test_without_a_zero_bin_nothing_goes():
    weight = nn.Linear(2, 1, bias=False)
    weight.weight.data = torch.tensor([[1.0, -1.0]])
    for kind in ("zeros", "random", "norm", "global"):
        assert zeros(Ablation(INT3, kind).apply(weight)) == [0]


@pytest.mark.parametrize("kind", ["clipped", "unclipped"])
def test_halves_of_clipping_and_rounding_are_those_of_the_treatment(network, kind):
    treatment = Treatment.parse(f"int3-mse-{kind}")
    ours = Ablation(Treatment.parse("int3-mse"), kind).apply(network).state_dict()
    assert all(
        torch.equal(ours[name], value) for name, value in treatment.apply(network, None).state_dict().items()
    )
    changed = [name for name in layers(network) if not torch.equal(ours[name], network.state_dict()[name])]
    assert changed == layers(network)


@pytest.mark.parametrize("kind", ["zeros", "random", "norm", "midrise", "clipped", "unclipped"])
def test_one_layer_alone_is_touched_and_as_it_is_when_all_are(network, kind):
    treatment = Treatment.parse("int3-mse") if kind.endswith("clipped") else INT3
    alone = Ablation(treatment, kind, "2.weight").apply(network).state_dict()
    together = Ablation(treatment, kind).apply(network).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(alone[name], together[name] if name == "2.weight" else value)
    assert not torch.equal(alone["2.weight"], network.state_dict()["2.weight"])


@given(
    values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30),
    bits=st.integers(2, 8),
)
def test_midrise_keeps_every_weight_alive_within_half_a_step(values, bits):
    weight = torch.tensor(values, dtype=torch.float64)
    largest = float(weight.abs().max())
    if largest < 1e-30:
        return
    step = 2 * largest / (2**bits - 1)
    rounded = midrise(weight, bits)
    assert (rounded - weight).abs().max() <= step / 2 * (1 + 1e-9)
    assert rounded.abs().min() >= step / 2 * (1 - 1e-9)
    assert rounded.abs().max() <= largest * (1 + 1e-9)
    assert len(rounded.unique()) <= 2**bits


def test_midrise_of_nothing_is_nothing():
    assert midrise(torch.zeros(2, 0), 3).shape == (2, 0)
    assert midrise(torch.zeros(3), 3).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Ablation(FP32, "zeros"), "treatment is fp32; expected one that rounds"),
        (lambda: Ablation(Treatment.parse("int3-qat"), "zeros"), "treatment is int3-qat; expected"),
        (lambda: Ablation(Treatment.parse("int3-zeros"), "zeros"), "treatment is int3-zeros; expected"),
        (lambda: Ablation(Treatment.parse("int3-mse"), "midrise"), "of which there is no midrise"),
        (lambda: Ablation(INT3, "global", "fc.weight"), "expected no layer"),
        (lambda: Ablation(Treatment.parse("nf4"), "clipped"), "treatment is nf4, which has no range"),
        (
            lambda: Ablation(INT3, "zeros", "x").apply(nn.Linear(2, 2)),
            "layer is 'x'; expected one of: weight",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(made, said):
    with pytest.raises(BadInput, match=said):
        made()


def test_every_kind_has_a_meaning_and_a_name(network):
    names = {Ablation(INT3, kind).name for kind in ablations.KINDS}
    assert len(names) == len(ablations.KINDS)


def test_predictions_of_an_ablation_are_kept_apart_and_current(tmp_path):
    store = Store(tmp_path)
    small = studies.studies(seeds=[0], arch="resnet18-16", train_images=60, test_images=60, epochs=1)
    one = [FP32, INT3, Ablation(INT3, "random"), Ablation(INT3, "random", "fc.weight")]
    found = studies.predictions(small, one, store=store)
    assert [prediction.treatment for prediction in found] == one
    assert len({tuple(prediction.logits.flatten().tolist()) for prediction in found}) == 4
    assert all(studies.is_current(entry.identity) for entry in store.entries())

    some = studies.predictions(small, one[:1], each=3, store=store)[0]
    assert np.bincount(some.groups).max() == 3
    sliced = found[0].of_each_group(3)
    assert torch.equal(sliced.groups, some.groups)
    assert torch.equal(sliced.labels, some.labels)
    torch.testing.assert_close(sliced.logits, some.logits, atol=1e-4, rtol=1e-4)

    written = dict(store.written)
    studies.predictions(small, one, each=0, store=store)
    assert dict(store.written) == written


def test_few_of_each_group_are_the_same_every_time_and_all_where_there_are_fewer():
    groups = torch.tensor([0] * 50 + [1] * 4)
    chosen = of_each(groups, 10)
    assert np.bincount(groups[chosen]).tolist() == [10, 4]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, of_each(groups, 10))
    # Drawn, not the first ones.
    assert chosen.tolist()[:10] != list(range(10))
