import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairq_utils import studies
from fairq_utils.errors import BadInput
from fairq_utils.store import Store
from fairq_utils.studies import FP32, Prediction, Study, Treatment
from fairq_utils.training import Recipe

SMALL = {"train_images": 60, "test_images": 60, "recipe": Recipe(epochs=1, batch_size=20)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def trained(monkeypatch):
    """The studies that were trained, in order."""
    calls = []
    train = studies.train

    def counted(*args, **options):
        calls.append(options["seed"])
        return train(*args, **options)

    monkeypatch.setattr(studies, "train", counted)
    return calls


@pytest.fixture
def predicted(monkeypatch):
    """The bit widths that were run over the test images, in order."""
    calls = []
    apply = Treatment.apply

    def counted(treatment, network):
        calls.append(treatment.bits)
        return apply(treatment, network)

    monkeypatch.setattr(Treatment, "apply", counted)
    return calls


def test_only_what_is_missing_is_made(tmp_path, trained, predicted):
    store = Store(tmp_path)
    wanted = studies.studies(seeds=[0, 1], **SMALL)
    first = studies.predictions(wanted, studies.treatments([8, 3]), store=store)
    assert trained == [0, 1]
    assert predicted == [None, 8, 3] * 2
    again = studies.predictions(wanted, studies.treatments([3, 8]), store=store)
    assert (len(trained), len(predicted)) == (2, 6)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(first, again, strict=True))
    studies.predictions(wanted, studies.treatments([8, 5]), store=store)
    assert trained == [0, 1]
    assert predicted[6:] == [5, 5]
    studies.predictions(studies.studies(seeds=[1, 2], **SMALL), [FP32], store=store)
    assert trained == [0, 1, 2]


def test_two_stores_hold_the_same(tmp_path):
    wanted = studies.studies(seeds=[0], **SMALL)
    logits = [
        studies.predictions(wanted, studies.treatments([4]), store=Store(tmp_path / name))[1].logits
        for name in ("one", "other")
    ]
    assert torch.equal(*logits)


def test_a_new_data_set_is_a_new_network(store, trained):
    studies.predictions([Study(**SMALL)], [FP32], store=store)
    before = len(trained)
    studies.predictions([Study(**SMALL | {"test_images": 70})], [FP32], store=store)
    assert len(trained) == before + 1


def test_a_treatment_leaves_the_network_alone_and_rounds_a_copy(store):
    network = studies.network(Study(**SMALL), store=store)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    treated = Treatment(3).apply(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    weight = treated.layer1[0].conv1.weight
    assert len(weight.unique()) <= 7  # {-3..3}
    assert treated.state_dict().keys() == before.keys()


@given(st.integers(2, 16))
def test_names_of_treatments_parse_back(bits):
    assert Treatment.parse(Treatment(bits).name) == Treatment(bits)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: studies.treatments([1]), "bits is 1; expected a whole number from 2 to 16"),
        (lambda: studies.treatments([0]), "bits is 0"),
        (lambda: studies.treatments([17]), "bits is 17"),
        (lambda: studies.treatments(["x"]), r"bit_widths is \['x'\]; expected whole numbers"),
        (lambda: studies.treatments("[4, x]"), r"bit_widths is '\[4, x\]'; expected whole numbers"),
        (lambda: studies.treatments("4"), "bit_widths is '4'; expected whole numbers"),
        (lambda: studies.treatments([4, 4]), r"bit_widths is \[4, 4\]; expected whole numbers, each once"),
        (lambda: studies.treatments([]), r"bit_widths is \[\]; expected whole numbers"),
        (lambda: studies.studies(seeds=[]), r"seeds is \[\]; expected whole numbers"),
        (lambda: studies.studies(seeds=[1, 1]), r"seeds is \[1, 1\]; expected whole numbers, each once"),
        (lambda: studies.studies(seeds=[-1]), "seed is -1"),
        (lambda: studies.studies(seeds=[0], dataset="mooths"), "dataset is 'mooths'; expected one of: moths"),
        (lambda: studies.studies(seeds=[0], arch="resnet"), "arch is 'resnet'; expected one of: resnet18"),
        (lambda: studies.studies(seeds=[0], image_size=3), "image_size is 3"),
        (lambda: studies.studies(seeds=[0], train_images=2), "2"),
        (lambda: Treatment.parse("int"), "treatment is 'int'"),
        (lambda: Treatment.parse("int99"), "bits is 99"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, said):
    with pytest.raises(BadInput, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_may_come_as_text_because_papermill_hands_them_over_so():
    assert studies.treatments("[3, 6]") == studies.treatments([6, 3])
    assert studies.studies(seeds="[1]") == studies.studies(seeds=[1])


def made_up(treatment: Treatment, seed: int, logits: np.ndarray) -> Prediction:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    return Prediction(
        Study(seed=seed), treatment, torch.tensor(logits), labels, labels, ("a", "b"), ("many", "few")
    )


def test_tables_pair_seeds_and_keep_each_seeds_own_collapse():
    right = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
    all_a, all_b = np.array([[1.0, 0.0]] * 6), np.array([[0.0, 1.0]] * 6)
    found = [
        made_up(FP32, 0, right),
        made_up(Treatment(2), 0, all_a),
        made_up(FP32, 1, right),
        made_up(Treatment(2), 1, all_b),
    ]
    accuracy = studies.accuracy_table(found).set_index(["treatment", "group"])["estimate"]
    assert accuracy["fp32"].to_dict() == {"many": 1.0, "few": 1.0, "OA": 1.0, "FVO": 0.0}
    assert accuracy["int2"].to_dict() == pytest.approx({"many": 0.5, "few": 0.5, "OA": 0.5, "FVO": 0.0})
    change = studies.change_table(found).set_index("group")["estimate"]
    assert change.to_dict() == pytest.approx({"many": -0.5, "few": -0.5, "OA": -0.5, "FVO": 0.0})
    # Pooled, two networks that each give one answer would look as if they used both classes.
    collapse = studies.collapse_table(found).set_index("treatment")
    assert collapse.loc["int2"].to_dict() == {"share": 1.0, "effective_classes": 1.0}
    chance = studies.chance_table(found).set_index("treatment")
    assert chance.loc["fp32", "upper"] == 0
    assert chance.loc["int2", "upper"] >= chance.loc["int2", "median"] >= 0
    assert isinstance(chance, pd.DataFrame)
