import json
from collections import Counter
from functools import partial

import pytest
import torch

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_utils.errors import BadInput, JobsFailed
from fairq_utils.training import fairqat, loop
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.jobs import train as jobs_train
from fairq_utils.treatments.treatment import FP32, Treatment

SMALL = {
    "arch": "resnet18-16",
    "train_images": 60,
    "test_images": 60,
    "recipe": Recipe(epochs=1, batch_size=20),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def trained(monkeypatch):
    """The studies that were trained, in order."""
    calls = []
    train = loop.train

    def counted(*args, **options):
        calls.append(options["seed"])
        return train(*args, **options)

    monkeypatch.setattr(jobs_train, "train_network", counted)
    return calls


@pytest.fixture
def predicted(monkeypatch):
    """The bit widths that were run over the test images, in order."""
    calls = []
    apply = Treatment.apply

    def counted(treatment, *inputs):
        calls.append(treatment.bits)
        return apply(treatment, *inputs)

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
    studies.predictions(studies.studies(seeds=[0], **SMALL), [FP32], store=store)
    before = len(trained)
    other = studies.studies(seeds=[0], **SMALL | {"test_images": 70})
    studies.predictions(other, [FP32], store=store)
    assert len(trained) == before + 1


def test_networks_are_those_that_predict(store):
    wanted = studies.studies(seeds=[0], **SMALL)
    treatments = [FP32, Treatment(3), Treatment.parse("int3-qat")]
    images = studies.dataset(wanted[0], store=store)
    test = images.images[images.is_test]
    for network, prediction in zip(
        studies.networks(wanted, treatments, store=store),
        studies.predictions(wanted, treatments, store=store),
        strict=True,
    ):
        torch.testing.assert_close(loop.predict(network, test), prediction.logits)
        weights = network.layer1[0].conv1.weight.unique()
        assert len(weights) > 1000 if prediction.treatment == FP32 else len(weights) <= 7  # {-3..3}


def test_a_network_tuned_in_full_precision_serves_every_width(store):
    wanted = studies.studies(seeds=[0], tuning_epochs=1, **SMALL)
    names = ["int4-ends8-tuned-weighted", "int3-tuned-weighted", "fp32-tuned-weighted", "fp32-tuned"]
    before = store.written["networks"]
    made = studies.predictions(wanted, [Treatment.parse(name) for name in names], store=store)
    assert store.written["networks"] - before - 1 <= 2  # beside the original
    assert len({prediction.logits.sum().item() for prediction in made}) == 4


def test_how_long_is_tuned_is_part_of_the_study(store):
    qat = [Treatment.parse("int4-qat")]
    short, long = (
        studies.predictions(studies.studies(seeds=[0], tuning_epochs=n, **SMALL), qat, store=store)[0]
        for n in (1, 2)
    )
    assert not torch.equal(short.logits, long.logits)


def test_the_splits_have_no_image_in_common(store):
    wanted = studies.studies(seeds=[0], **SMALL | {"train_images": 400})
    found = {
        split: studies.predictions(wanted, [FP32], split=split, store=store)[0]
        for split in ("train", "tuning", "test")
    }
    assert len(found["test"].labels) == 60
    assert len(found["train"].labels) + len(found["tuning"].labels) == 400
    assert 30 < len(found["tuning"].labels) <= 40
    every = torch.cat([prediction.images for prediction in found.values()])
    assert len(every.unique()) == 460
    assert {split: prediction.split for split, prediction in found.items()} == {s: s for s in found}
    images = studies.dataset(wanted[0], store=store)
    logits = loop.predict(studies.network(wanted[0], store=store), images.images)
    torch.testing.assert_close(found["tuning"].logits, logits[images.is_tuning])
    with pytest.raises(BadInput, match="split is 'tests'; expected one of: train, tuning, test"):
        studies.predictions(wanted, [FP32], split="tests", store=store)


def test_an_interrupted_training_goes_on_from_the_store(tmp_path, monkeypatch):
    wanted = studies.studies(seeds=[0], **SMALL | {"recipe": Recipe(epochs=3, batch_size=20)})
    whole = studies.predictions(wanted, [FP32], store=Store(tmp_path / "whole"))[0]

    class Interrupted(BaseException):
        pass

    def interrupt(epochs):
        def wrapped(*inputs, report, **options):
            def counting(done, said=""):
                report(done, said)
                epochs.append(bool(said))
                if interrupted and sum(epochs) == 2 and not said:
                    raise Interrupted

            return train(*inputs, report=counting, **options)

        return wrapped

    train, store = loop.train, Store(tmp_path / "other")
    monkeypatch.setattr(studies, "Checkpoint", partial(loop.Checkpoint, every_seconds=0))
    monkeypatch.setattr(jobs_train, "train_network", interrupt(first := []))
    interrupted = True
    with pytest.raises(Interrupted):
        studies.predictions(wanted, [FP32], store=store)
    assert [entry.identity["name"] for entry in store.entries() if entry.kind == "checkpoints"] == [
        "moths-resnet18-16-32px-seed0"
    ]
    monkeypatch.setattr(jobs_train, "train_network", interrupt(second := []))
    interrupted = False
    resumed = studies.predictions(wanted, [FP32], store=store)[0]
    assert (sum(first), sum(second)) == (2, 1)
    assert torch.equal(resumed.logits, whole.logits)
    assert not [entry for entry in store.entries() if entry.kind == "checkpoints"]


def test_a_treatment_that_trains_is_trained_once_and_starts_from_the_original(store, monkeypatch):
    started_from = []
    train = Treatment.train

    def counted(treatment, network, *inputs, **options):
        started_from.append(network.fc.weight.clone())
        return train(treatment, network, *inputs, **options)

    monkeypatch.setattr(Treatment, "train", counted)
    wanted = studies.studies(seeds=[4], **SMALL)
    qat = [Treatment.parse("int4-qat")]
    (first,) = studies.predictions(wanted, qat, store=store)
    (again,) = studies.predictions(wanted, qat, store=store)
    assert torch.equal(first.logits, again.logits)
    original = studies.networks(wanted, store=store)[0].fc.weight
    assert len(started_from) == 1
    assert torch.equal(started_from[0], original)


def test_what_cannot_be_made_is_named_and_the_rest_is_made(tmp_path, trained):
    store = Store(tmp_path)
    good = studies.studies(seeds=[0, 1], **SMALL)
    bad = studies.studies(
        seeds=[7], **SMALL | {"recipe": Recipe(epochs=1, batch_size=20, learning_rate=1e30)}
    )
    with pytest.raises(JobsFailed, match=r"seed7: .*loss became .*; expected a finite number") as caught:
        studies.predictions([good[0], *bad, good[1]], studies.treatments([4]), store=store)
    assert caught.value.failures.keys() == {
        f"moths-resnet18-16-32px-seed7{t}" for t in ("", "-fp32", "-int4")
    }
    assert trained == [0, 7, 1]
    assert len(studies.stored_predictions(good, studies.treatments([4]), store=store)) == 4
    with pytest.raises(BadInput, match=r"2 of 2 predictions are not in .*; expected all: make them first"):
        studies.stored_predictions(bad, studies.treatments([4]), store=store)


def test_what_is_in_the_store_is_current_until_the_code_changes(tmp_path):
    store = Store(tmp_path)
    studies.predictions(studies.studies(seeds=[0], **SMALL), [Treatment.parse("int4-qat")], store=store)
    entries = list(store.entries())
    kinds = Counter(entry.kind for entry in entries)
    assert kinds == {"datasets": 2 * 5, "networks": 2, "predictions": 1}  # a brood of each group and split
    assert all(studies.is_current(entry.identity) for entry in entries)
    for entry in entries:
        assert not studies.is_current(entry.identity | {"code": "other"})
        if "network" in entry.identity:
            assert not studies.is_current(
                entry.identity | {"network": entry.identity["network"] | {"code": ""}}
            )
        else:
            assert not studies.is_current(entry.identity | {"versions": {"torch": "1.0"}})


def test_where_the_data_lie_decides_nothing(store):
    identity = studies._plans(studies.studies(seeds=[0], **SMALL), store)[0].original.identity
    assert "root" not in json.dumps(identity)


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
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, said):
    with pytest.raises(BadInput, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_may_come_as_text_because_papermill_hands_them_over_so():
    assert studies.treatments("[3, 6]") == studies.treatments([6, 3])
    assert studies.studies(seeds="[1]") == studies.studies(seeds=[1])


def test_a_seed_tells_its_fold_and_its_draw():
    asked = studies.studies(seeds=[0, 4, 5, 903], dataset="utkface", root="faces")
    assert [study.dataset.fold for study in asked] == [0, 4, 0, 3]
    assert {study.dataset.draw for study in asked} == {0}
    asked = studies.studies(seeds=[0, 3, 4, 899, 900, 903, 904], dataset="moths-equal")
    assert [study.dataset.draw for study in asked] == [0, 3, 0, 3, 10, 13, 10]
    assert [study.dataset.rotation for study in asked] == [0, 3, 4, 4, 0, 3, 4]
    assert {study.dataset.rotation for study in studies.studies(seeds=[0, 3])} == {0}
    assert {study.dataset.fold for study in asked} == {0}
    assert len({study.name for study in asked}) == 7


def test_no_network_is_trained_on_images_for_tuning_or_test(tmp_path, monkeypatch):
    seen = []

    def spied(network, images, *rest, fit=loop.fit, **options):
        seen.append(images)
        return fit(network, images, *rest, **options)

    monkeypatch.setattr(loop, "fit", spied)
    monkeypatch.setattr(fairqat, "fit", spied)
    wanted = studies.studies(seeds=[0], tuning_epochs=1, **SMALL)
    arms = [Treatment.parse(name) for name in ("int4-qat", "fp32-tuned-weighted", "int3-fairqat")]
    studies.predictions(wanted, [FP32, *arms], store=Store(tmp_path))
    assert len(seen) == 4
    images = studies.dataset(wanted[0])
    assert images.is_tuning.any()
    for own in seen:
        assert torch.equal(own, images.images[images.is_train])


def test_seeds_of_one_draw_share_their_test_images_and_others_none(store):
    one, other, again = studies.predictions(studies.studies(seeds=[0, 1, 4], **SMALL), [FP32], store=store)
    assert torch.equal(one.images, again.images)
    assert not torch.isin(one.images, other.images).any()
    assert one.fingerprint == again.fingerprint != other.fingerprint
    few = one.of_each_group(2)
    assert torch.isin(few.images, one.images).all()
    assert len(few.images) == len(few.labels) == 10
