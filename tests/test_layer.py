"""The layer of what networks answered: no answer changes, nothing foreign is read, and no path is shipped."""

import json
import lzma
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairq_book.experiments import layer as module
from fairq_book.experiments.layer import (
    Layer,
    LayerNetwork,
    Split,
    compact,
    stale,
    verify,
)
from fairq_book.root import book_root
from fairq_utils.errors import BadInput
from fairq_utils.items import Item
from fairq_utils.metrics.groups import correct_answers, flipped

MADE = {
    "code": {"train": "1" * 64, "predict": "2" * 64},
    "revision": "abc",
    "versions": {"torch": "2.12"},
    "device": "cpu",
    "date": "2025-01-31",
}
GROUPS = ("many", "some", "few")
IMAGES = 400


def a_split(seed: int = 0, images: int = IMAGES) -> Split:
    draw = np.random.default_rng(seed)
    groups = torch.from_numpy(draw.choice(3, images, p=[0.6, 0.3, 0.1]))
    labels = torch.from_numpy(draw.integers(0, 4, images))
    sizes = {"train": [60, 30, 10], "tuning": [6, 3, 1], "test": torch.bincount(groups).tolist()}
    ages = torch.from_numpy(draw.integers(0, 117, images))
    return Split(labels, groups, ("a", "b", "c", "d"), GROUPS, sizes, "f" * 64, {"age": ages})


def a_network(seed: int = 0, split: Split | None = None, *, strength: float = 2.0, **changes) -> LayerNetwork:
    split = split or a_split()
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(split.labels), 4, generator=draw)
    logits[torch.arange(len(split.labels)), split.labels] += strength
    treated = {
        "fp32": logits,
        "int2": 900 * logits + 300 * torch.randn(logits.shape, generator=draw),
        "int8-mse": logits + 0.02,
    }
    network = LayerNetwork(
        name=f"faces-seed{seed}",
        study={"seed": seed, "dataset": {"name": "faces", "sizes": [1, 2], "fold": seed % 5}},
        weights=f"{seed:064x}",
        split=split.key,
        logits=treated,
        record={"zeros": {"int2": 0.25}, "bytes": 7, "offsets": None},
        made=MADE,
    )
    return replace(network, **changes)


@pytest.fixture
def layer(tmp_path) -> Layer:
    return Layer(tmp_path / "results")


def write(layer: Layer, *networks: LayerNetwork, split: Split | None = None) -> None:
    for network in networks:
        layer.write("faces", network, split or a_split())


def files(layer: Layer, pattern: str = "*.xz"):
    return sorted((layer.folder / "faces").glob(pattern))


# ---------------------------------------------------------------- logits in two bytes

MOST = float(np.float32(3.4e38))
FINITE = st.floats(-MOST, MOST, width=32)
NEAR = st.integers(-8, 8).map(lambda number: number / 256)  # ties, and what rounding makes one
NUMBERS = st.one_of(
    FINITE, NEAR, st.floats(-20, 20, width=32), st.sampled_from([511.98, 512.0, -512.0, 1e-30])
)
SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 10))
LOGITS = st.one_of(
    *(arrays.arrays(np.float32, SHAPES, elements=elements) for elements in (NUMBERS, NEAR, FINITE))
)


@settings(max_examples=600)
@given(LOGITS, st.randoms(use_true_random=False))
def test_no_answer_changes_and_no_logit_much(logits, random):
    steps, power = compact(torch.from_numpy(logits))
    back = torch.from_numpy(steps).float() * 2.0**power
    labels = [random.randrange(logits.shape[1]) for _ in logits]
    assert not flipped(logits, back).any()
    assert np.array_equal(correct_answers(logits, labels), correct_answers(back, labels))
    assert torch.equal(back.argmax(1), torch.from_numpy(logits).argmax(1))
    assert np.array_equal(back.double(), steps.astype(float) * 2.0**power)  # float32 holds it exactly
    errors = np.abs(back.double().numpy() - logits) / 2.0**power
    lifted = np.zeros_like(errors, dtype=bool)
    lifted[np.arange(len(logits)), logits.argmax(1)] = True
    assert errors[~lifted].max(initial=0) <= 0.5
    assert errors[lifted].max() <= 1.5
    # No coarser than the largest needs.
    assert power == -6 or np.abs(logits).astype(float).max() >= 32766.5 * 2.0 ** (power - 1)


def test_only_a_winner_that_rounding_would_rob_is_lifted():
    logits = torch.tensor([[0.0, 0.001], [0.001, 0.0], [0.5, 0.5], [-3.0, -1.0]])
    steps, power = compact(logits)
    assert (steps.tolist(), power) == ([[0, 1], [0, 0], [32, 32], [-192, -64]], -6)


def test_a_step_doubles_until_the_largest_fits_and_can_be_lifted():
    largest = 32766 / 64
    assert compact(torch.tensor([[largest, largest]]))[1] == -6
    steps, power = compact(torch.tensor([[511.96875, 511.984375]]))
    assert (steps.tolist(), power) == ([[16383, 16384]], -5)
    steps, power = compact(torch.tensor([[MOST, -MOST, MOST]]))
    back = torch.from_numpy(steps).float() * 2.0**power
    assert torch.isfinite(back).all()
    assert back.argmax() == 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_the_metrics_refuse_are_refused_and_named(layer, broken):
    network = a_network()
    network.logits["int2"][5, 1] = broken
    with pytest.raises(BadInput, match="faces-seed0, int2: 1 of the 1600 logits are NaN or infinite"):
        write(layer, network)
    assert not layer.settings()
    with pytest.raises(BadInput, match=r"expected less than 3\.4e38"):
        compact(torch.tensor([[torch.finfo(torch.float32).max, 0.0]]))


# ---------------------------------------------------------------- what was written is read


def test_a_network_is_read_as_it_was_written(layer):
    split, network = a_split(), a_network()
    layer.write("faces", network, split)
    found = layer.find("faces", network.study)
    for name in ("name", "study", "weights", "split", "record", "made"):
        assert getattr(found, name) == getattr(network, name)
    assert [*found.logits] == ["fp32", "int2", "int8-mse"]
    for name, logits in found.logits.items():
        assert logits.dtype == torch.float32
        assert not flipped(logits, network.logits[name]).any()
    assert (found.logits["fp32"] - network.logits["fp32"]).abs().max() <= 1.5 / 64
    assert found.logits["int2"].abs().max() > 1000  # so that its differences from the first wrap round
    back = layer.split("faces", found)
    assert back.key == split.key
    assert (back.label_names, back.group_names) == (split.label_names, split.group_names)
    assert (back.sizes, back.fingerprint) == (split.sizes, split.fingerprint)
    for one, other in [
        (back.labels, split.labels),
        (back.groups, split.groups),
        (back.attributes["age"], split.attributes["age"]),
    ]:
        assert torch.equal(one, other)


def test_differences_that_wrap_round_come_back(layer):
    split = a_split(images=50)
    signs = torch.ones(50, 4)
    signs[:, 1:] = -1
    network = a_network(split=split, logits={"fp32": 511 * signs, "int2": -511 * signs})
    layer.write("faces", network, split)
    for name, logits in layer.find("faces", network.study).logits.items():
        assert torch.equal(logits.sign(), network.logits[name].sign()), name
        assert (logits - network.logits[name]).abs().max() <= 1.5 / 64, name


def test_networks_are_told_apart_by_their_whole_study(layer):
    write(layer, a_network(0), a_network(1))
    other = a_network(0, study=a_network(0).study | {"arch": "resnet18-16"}, record={"of": "another"})
    write(layer, other)
    assert len([*layer.networks("faces")]) == 3
    assert layer.find("faces", other.study).record == {"of": "another"}
    assert layer.find("faces", a_network(0).study).record != {"of": "another"}
    assert layer.find("faces", {"seed": 0}) is None
    assert layer.find("moths", a_network(0).study) is None
    assert [*layer.networks("moths")] == []
    assert layer.settings() == ["faces"]


def test_a_network_made_again_takes_the_place_of_the_first(layer):
    write(layer, a_network())
    write(layer, a_network(record={"again": True}))
    assert [network.record for network in layer.networks("faces")] == [{"again": True}]


def test_networks_of_one_test_part_share_its_file_and_equal_content_is_an_equal_file(layer, tmp_path):
    write(layer, a_network(0), a_network(1))
    write(layer, a_network(2, a_split(2)), split=a_split(2))
    assert len(files(layer, "splits/*")) == 2
    again = Layer(tmp_path / "again")
    write(again, a_network(0))
    assert files(again)[0].read_bytes() == files(layer)[0].read_bytes()
    assert layer.nbytes() == sum(file.stat().st_size for file in layer.folder.rglob("*") if file.is_file())


def test_tables_beside_the_networks_are_left_alone(layer):
    write(layer, a_network())
    (layer.folder / "faces" / "accuracy.csv").write_text("treatment\n")
    (layer.folder / "gender").mkdir()
    (layer.folder / "gender" / "accuracy.csv").write_text("treatment\n")
    assert layer.settings() == ["faces"]
    assert len([*layer.networks("faces")]) == 1


# ---------------------------------------------------------------- what is refused


def refused(layer: Layer, path) -> str:
    """The one sentence in which reading everything is refused; it names the file."""
    with pytest.raises(BadInput) as told:
        [layer.split("faces", network) for network in layer.networks("faces")]
    said = str(told.value)
    assert str(path) in said
    assert said.count(";") >= 1
    assert "\n" not in said
    return said


@pytest.mark.parametrize("which", ["*.xz", "splits/*.xz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"more",
        lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
        lambda content: b"treatment,group\n",
        lambda content: lzma.compress(b"treatment,group\n"),
        lambda content: lzma.compress(b""),
        lambda content: lzma.compress(lzma.decompress(content)[:-2]),
        lambda content: lzma.compress(safetensors.torch.save({"labels": torch.zeros(2, dtype=torch.int16)})),
        lambda content: lzma.compress(safetensors.torch.save({})),
    ],
)
def test_damaged_and_foreign_files_are_refused(layer, which, damage):
    write(layer, a_network())
    (path,) = files(layer, which)
    path.write_bytes(damage(path.read_bytes()))
    refused(layer, path)


def test_content_that_is_whole_but_not_that_of_its_digest_is_refused(layer):
    write(layer, a_network())
    for path in files(layer, "**/*.xz"):
        whole = path.read_bytes()
        content = bytearray(lzma.decompress(whole))
        content[-1] ^= 1
        path.write_bytes(lzma.compress(bytes(content)))
        assert "its content is not that of its SHA-256" in refused(layer, path)
        path.write_bytes(whole)


def test_a_bomb_is_refused_before_it_unpacks(layer, monkeypatch):
    write(layer, a_network())
    (path,) = files(layer)
    monkeypatch.setattr(module, "_LARGEST", 2**20)
    path.write_bytes(lzma.compress(bytes(2**22)))
    assert path.stat().st_size < 2**12
    assert "more than 1,048,576 bytes" in refused(layer, path)
    path.write_bytes(bytes(2**20 + 2))
    refused(layer, path)
    path.write_bytes(lzma.compress(b"x", preset=9))  # a dictionary of 64 MiB
    assert "LZMAError: Memory usage limit" in refused(layer, path)


def test_what_could_not_be_read_is_not_written(layer, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 2**13)
    with pytest.raises(BadInput, match="bytes for one file; expected at most 8,192"):
        write(layer, a_network())
    assert not layer.settings()


def forged(path, change) -> None:
    """Rewrite a file with other values and the digest that belongs to them."""
    content = lzma.decompress(path.read_bytes())
    tensors = safetensors.torch.load(content)
    length = int.from_bytes(content[:8], "little")
    info = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fairq"])["info"]
    tensors, info = change(tensors, info)
    header = {"fairq": json.dumps({"info": info, "digest": Item(tensors, info).digest})}
    path.write_bytes(lzma.compress(safetensors.torch.save(tensors, metadata=header)))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, info: (tensors | {"int9": tensors["fp32"].clone()}, info),
        lambda tensors, info: (tensors | {"int2": tensors["fp32"][:5].clone()}, info),
        lambda tensors, info: ({name: t.flatten() for name, t in tensors.items()}, info),
        lambda tensors, info: ({name: t.float() for name, t in tensors.items()}, info),
        lambda tensors, info: (tensors, info | {"powers": [[n, 10**6] for n, _ in info["powers"]]}),
        lambda tensors, info: (tensors, info | {"powers": 3}),
        lambda tensors, info: (tensors, info | {"split": "../../../etc/passwd"}),
        lambda tensors, info: (tensors, info | {"weights": None}),
        lambda tensors, info: (tensors, info | {"study": [1]}),
        lambda tensors, info: (tensors, info | {"more": 1}),
        lambda tensors, info: (tensors, {k: v for k, v in info.items() if k != "made"}),
        lambda tensors, info: (tensors, [1]),
    ],
)
def test_a_network_of_somebody_else_is_refused_though_its_digest_fits(layer, change):
    write(layer, a_network())
    (path,) = files(layer)
    forged(path, lambda tensors, info: (tensors, info))
    assert len([*layer.networks("faces")]) == 1
    forged(path, change)
    refused(layer, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, info: (tensors | {"labels": tensors["labels"] + 1}, info),
        lambda tensors, info: ({name: t[:9].contiguous() for name, t in tensors.items()}, info),
        lambda tensors, info: ({name: t for name, t in tensors.items() if name != "groups"}, info),
        lambda tensors, info: (tensors, info | {"sizes": {"test": [1, 2, 3]}}),
        lambda tensors, info: (tensors, info | {"fingerprint": "0" * 64}),  # whole, but of other images
        lambda tensors, info: (tensors, info | {"attributes": ["height"]}),
    ],
)
def test_a_split_of_somebody_else_is_refused_though_its_digest_fits(layer, change):
    write(layer, a_network())
    (path,) = files(layer, "splits/*")
    forged(path, change)
    refused(layer, path)


def test_a_network_without_its_split_is_refused(layer):
    write(layer, a_network())
    (path,) = files(layer, "splits/*")
    path.unlink()
    assert "FileNotFoundError" in refused(layer, path)


def test_a_network_belongs_to_the_split_that_it_names(layer):
    with pytest.raises(BadInput, match="give the split that it was tested on"):
        layer.write("faces", a_network(), a_split(1))
    for logits in ({}, {"fp32": torch.zeros(IMAGES, 3)}, {"fp32": torch.zeros(9, 4)}):
        with pytest.raises(BadInput, match="expected one treatment or more, each of"):
            layer.write("faces", a_network(logits=logits), a_split())
    assert not layer.settings()


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.zeros(IMAGES)},
        {"labels": torch.zeros(0, dtype=torch.int64)},
        {"labels": torch.tensor(3)},
        {"labels": torch.full((IMAGES,), 4)},
        {"labels": torch.full((IMAGES,), -1)},
        {"labels": torch.zeros(IMAGES - 1, dtype=torch.int64)},
        {"groups": torch.zeros(IMAGES, dtype=torch.int64)},
        {"group_names": ("many", "many", "few")},
        {"sizes": {"test": [1, 2, 3]}},
        {"fingerprint": "faces"},
        {"attributes": {"age": torch.full((IMAGES,), 40_000)}},
        {"attributes": {"age": torch.zeros(IMAGES, 2, dtype=torch.int64)}},
    ],
)
def test_a_split_that_contradicts_itself_is_refused(changes):
    with pytest.raises(BadInput, match="expected"):
        replace(a_split(), **changes)


@pytest.mark.parametrize("path", ["/home/ada/faces", "C:\\faces", "C:/faces", "~/faces", "\\\\server\\faces"])
def test_no_path_is_shipped(path):
    for changes in (
        {"study": {"dataset": {"files": [path]}}},
        {"record": {path: 1}},
        {"made": MADE | {"device": path}},
    ):
        with pytest.raises(BadInput, match="a path of this machine"):
            a_network(**changes)
    with pytest.raises(BadInput, match="holds 'faces', a path"):
        a_network(study={"dataset": {"root": "faces"}})
    assert a_network(study={"dataset": {"root": None, "share": "1/5"}}).study["dataset"]["root"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../faces"},
        {"name": ""},
        {"weights": "abc"},
        {"split": "A" * 64},
        {"made": {"code": {}}},
        {"record": {"tensor": torch.zeros(2)}},
        {"study": "faces"},
    ],
)
def test_a_network_that_is_not_told_whole_is_refused(changes):
    network = a_network()
    with pytest.raises(BadInput, match="expected"):
        replace(network, **changes)


@pytest.mark.parametrize("setting", ["..", "", "a/b", "/tmp"])
def test_a_setting_is_a_folder_of_the_layer(layer, setting):
    with pytest.raises(BadInput, match="setting is"):
        layer.write(setting, a_network(), a_split())


# ---------------------------------------------------------------- what is made anew


def test_stages_whose_code_changed_or_went_are_stale():
    network = a_network()
    assert stale(network, MADE["code"] | {"survey": "3" * 64}) == []
    assert stale(network, MADE["code"] | {"train": "3" * 64}) == ["train"]
    assert stale(network, {"train": "1" * 64}) == ["predict"]


def elsewhere(network: LayerNetwork) -> LayerNetwork:
    return replace(network, made=MADE | {"device": "cuda"})


def test_in_the_same_place_every_answer_is_to_be_equal(layer):
    write(layer, *map(a_network, range(4)))
    anew = a_network(2)
    table = verify(layer, "faces", anew)
    assert table["agrees"].all()
    assert (table["tolerance"] == 0).all()
    assert (table["wrong_passes_all"] == 0).all()
    split = a_split()
    correct = correct_answers(anew.logits["int2"], split.labels)
    row = table[(table["treatment"] == "int2") & (table["group"] == "few")].iloc[0]
    assert (row["n"], row["kept"], row["anew"]) == (
        split.sizes["test"][2],
        *[correct[split.groups == 2].sum()] * 2,
    )
    # One image of the largest group is answered otherwise, and as wrong as before.
    wrong = np.flatnonzero(~correct & (split.groups.numpy() == 0))[0]
    answer = int(anew.logits["int2"][wrong].argmax())
    another = next(c for c in range(4) if c not in (answer, int(split.labels[wrong])))
    anew.logits["int2"][wrong, another] = 1e5
    table = verify(layer, "faces", anew)
    differing = table[~table["agrees"]]
    assert differing[["treatment", "group"]].to_numpy().tolist() == [["int2", "many"]]
    assert (differing["kept"] == differing["anew"]).all()


@pytest.mark.parametrize("key", ["code", "versions", "device"])
def test_elsewhere_a_seed_may_give_what_another_seed_gives(layer, key):
    write(layer, *map(a_network, range(6)))
    anew = a_network(40, study=a_network(3).study, made=MADE | {key: {"other": "place"}})
    table = verify(layer, "faces", anew)
    assert table["agrees"].all()
    assert (table["tolerance"] > 0).all()
    assert (table["kept"] != table["anew"]).any()
    assert (table["wrong_passes"] == 1).all()  # of the same study every seed would pass, and that is said


def test_elsewhere_another_network_is_seen_and_said_to_be(layer):
    write(layer, *map(a_network, range(4)))
    worse = [a_network(seed, strength=0.2, study={"arch": "small", "seed": seed}) for seed in range(7, 13)]
    write(layer, *worse)
    table = verify(layer, "faces", elsewhere(a_network(1)))
    assert table["agrees"].all()
    many = table[table["group"] == "many"]
    assert many["wrong_passes"].tolist() == pytest.approx([3 / 9] * 3)
    assert table["wrong_passes_all"].tolist() == pytest.approx([3 / 9] * 9)
    table = verify(layer, "faces", elsewhere(replace(worse[0], study=a_network(1).study)))
    assert not table[table["group"] == "many"]["agrees"].any()


def test_seeds_that_differ_more_allow_more(layer):
    strengths = [0.5, 1.0, 2.0, 3.0, 4.0]
    write(layer, *(a_network(seed, strength=strength) for seed, strength in enumerate(strengths)))
    wide = verify(layer, "faces", elsewhere(a_network(2)))["tolerance"]
    n = np.array(a_split().sizes["test"])
    rights = [
        np.bincount(
            a_split().groups[correct_answers(a_network(s, strength=x).logits["fp32"], a_split().labels)]
        )
        for s, x in enumerate(strengths)
        if s != 2
    ]
    of_seeds = np.ceil(4 * np.sqrt(2) * np.std(rights, axis=0, ddof=1))
    assert wide[:3].tolist() == of_seeds.tolist()
    alone = Layer(layer.folder.parent / "alone")
    write(alone, a_network(2))
    table = verify(alone, "faces", elsewhere(a_network(2)))
    share = (table["kept"] + 1) / (table["n"] + 2)
    binomial = np.ceil(4 * np.sqrt(2 * table["n"] * share * (1 - share)))
    assert table["tolerance"].tolist() == binomial.tolist()
    assert table["n"].tolist() == [*n] * 3
    assert table[["wrong_passes", "wrong_passes_all"]].isna().all(axis=None)


def test_networks_on_other_images_count_by_their_accuracy_and_where_a_treatment_is_missing_not(layer):
    write(layer, a_network(0), a_network(1))
    other = a_split(5, images=3 * IMAGES)
    of_other = a_network(2, other, study={"arch": "another"})  # so that it does not widen what is allowed
    write(layer, replace(of_other, logits={"fp32": of_other.logits["fp32"]}), split=other)
    table = verify(layer, "faces", elsewhere(a_network(0))).set_index(["treatment", "group"])
    assert (table["wrong_passes"] == 1).all()
    assert (table["wrong_passes_all"] == 1).all()
    exact = verify(layer, "faces", a_network(0)).set_index(["treatment", "group"])
    assert (exact.loc["fp32", "wrong_passes"] == 0).all()
    assert exact["agrees"].all()


def test_some_treatments_may_be_made_anew_and_a_group_without_images_has_no_row(layer):
    split = a_split()
    split = replace(
        split,
        group_names=(*GROUPS, "none"),
        sizes={part: [*sizes, 0] for part, sizes in split.sizes.items()},
    )
    network = a_network(split=split)
    layer.write("faces", network, split)
    table = verify(layer, "faces", replace(network, logits={"int2": network.logits["int2"]}))
    assert table["group"].tolist() == [*GROUPS]
    assert set(table["treatment"]) == {"int2"}


def test_what_cannot_be_compared_is_refused(layer):
    write(layer, a_network())
    for anew in (a_network(1), a_network(0, a_split(3)), a_network(logits={"int7": torch.zeros(IMAGES, 4)})):
        with pytest.raises(BadInput, match="holds no network of its study, test images and treatments"):
            verify(layer, "faces", anew)


# ---------------------------------------------------------------- how much it takes


def test_a_treatment_of_faces_takes_thirty_kilobytes_and_one_near_the_original_less(layer):
    """4,740 test images and five classes, as UTKFace has them."""
    draw = np.random.default_rng(0)
    groups = torch.from_numpy(draw.choice(5, 4740, p=[0.43, 0.19, 0.15, 0.17, 0.06]))
    sizes = {part: torch.bincount(groups).tolist() for part in ("train", "tuning", "test")}
    split = Split(groups, groups, tuple("abcde"), tuple("abcde"), sizes, "f" * 64)
    logits = torch.from_numpy(draw.normal(scale=1.8, size=(4740, 5)))
    logits[torch.arange(4740), groups] += torch.from_numpy(draw.gamma(2, 2, 4740))
    network = replace(a_network(), split=split.key, logits={"fp32": logits})
    layer.write("faces", network, split)
    (file,) = files(layer)
    alone = file.stat().st_size
    assert 25_000 < alone < 31_000
    near = logits + 0.05 * torch.from_numpy(draw.normal(size=logits.shape))
    layer.write("faces", replace(network, logits={"fp32": logits, "int8": near}), split)
    assert file.stat().st_size - alone < 15_000
    assert files(layer, "splits/*")[0].stat().st_size < 3000


def test_the_book_ships_at_most_120_megabytes():
    shipped = Layer(book_root() / "book" / "results")
    if not shipped.settings():
        pytest.skip(f"{shipped.folder} holds no files of networks")
    assert shipped.nbytes() <= 120_000_000
    for setting in shipped.settings():
        for network in shipped.networks(setting):
            shipped.split(setting, network)  # refuses what is not whole
