import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits
from torch import Tensor

from fairq_utils.data.moths import DIFFICULTY, SHARES, Moths, MothSettings, draw_moths
from fairq_utils.errors import BadInput

EQUAL = (0.2,) * 5
SAMPLE = MothSettings(train=60, test=20, seed=3)
DIGEST = "63ed76ba201940403ee434b6a95c3e992a9d2449c42f5d3fc5e21126b52f1c44"


def digest(moths: Moths) -> str:
    return hashlib.sha256(moths.images.numpy().tobytes() + moths.labels.numpy().tobytes()).hexdigest()


def changed(**knobs: object) -> Moths:
    return draw_moths(dataclasses.replace(SAMPLE, **knobs))


def of_group(moths: Moths, group: int, *, train: bool = True) -> Tensor:
    return moths.images[(moths.groups == group) & (moths.is_train == train)]


def pooled(images: Tensor, cell: int) -> np.ndarray:
    count, channels, side, _ = images.shape
    cells = images.numpy().reshape(count, channels, side // cell, cell, side // cell, cell)
    return cells.mean(axis=(3, 5))


def lda_accuracy(**knobs: object) -> np.ndarray:
    """Test accuracy of each group for a linear classifier of 8 x 8 colours: someone else's plain judge."""
    moths = draw_moths(MothSettings(train=1500, test=1500, sizes=EQUAL, **knobs))
    inputs = pooled(moths.images, 4).reshape(len(moths.images), -1)
    train, groups = moths.is_train.numpy(), moths.groups.numpy()
    with threadpool_limits(1):  # for so small a problem, threads on a shared machine wait rather than work
        judge = LinearDiscriminantAnalysis().fit(inputs[train], groups[train])
    right = judge.predict(inputs[~train]) == groups[~train]
    return np.array([right[groups[~train] == group].mean() for group in range(5)])


@pytest.fixture(scope="module")
def sample() -> Moths:
    return draw_moths(SAMPLE)


@pytest.fixture(scope="module")
def middling() -> np.ndarray:
    return lda_accuracy(difficulty=(1,) * 5)


def test_the_same_settings_give_the_same_images(sample: Moths) -> None:
    # Fails after a change of the moths, and perhaps after one of NumPy's random streams: networks trained
    # on the old ones then tell nothing about the new, and the calibration wants to be seen again.
    assert digest(sample) == DIGEST


def test_a_processor_with_fewer_instructions_draws_the_same_images() -> None:
    # NumPy without AVX2, AVX-512 and FMA is as near to another processor as one machine comes.
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    present = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    if not present:
        pytest.skip("this processor has no instructions that NumPy could do without")
    script = "from tests.test_moths import SAMPLE, digest, draw_moths; print(digest(draw_moths(SAMPLE)))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(present)},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == DIGEST, run.stderr


def test_sizes_are_the_shares_of_both_splits() -> None:
    moths = draw_moths(MothSettings(train=1000, test=200, image_size=16))
    assert torch.bincount(moths.groups[moths.is_train]).tolist() == [425, 191, 145, 168, 71]
    assert torch.bincount(moths.groups[~moths.is_train]).tolist() == [85, 38, 29, 34, 14]
    assert moths.images.dtype == torch.uint8
    assert moths.labels.dtype == moths.groups.dtype == torch.int64
    assert moths.labels.equal(moths.groups)


@pytest.mark.parametrize("total", [97, 1000, 2999])
def test_head_counts_are_within_one_of_the_shares(total: int) -> None:
    groups = draw_moths(MothSettings(train=total, test=20, image_size=16)).groups[:total]
    assert np.abs(np.bincount(groups) - total * np.array(SHARES)).max() < 1


def test_a_group_is_the_same_when_another_groups_knobs_or_any_size_change(sample: Moths) -> None:
    more = changed(
        train=100,
        test=90,
        sizes=(0.1, 0.2, 0.2, 0.2, 0.3),
        difficulty=(3, 0, *DIFFICULTY[2:]),
        label_noise=(0.5, 0.5, 0, 0, 0),
    )
    for group in (2, 3, 4):
        for train in (True, False):
            before, after = of_group(sample, group, train=train), of_group(more, group, train=train)
            common = min(len(before), len(after))
            assert common >= 1
            assert before[:common].equal(after[:common])
    for group in (0, 1):
        before, after = of_group(sample, group), of_group(more, group)
        assert not before[:5].equal(after[:5])


def test_no_two_images_are_alike_in_either_split_or_seed(sample: Moths) -> None:
    images = torch.cat([sample.images, changed(seed=4).images])
    assert len(torch.unique(images, dim=0)) == len(images)


def test_label_noise_changes_training_labels_of_its_group_and_nothing_else(sample: Moths) -> None:
    sizes = MothSettings(train=2000, test=1000, image_size=16)
    moths = draw_moths(dataclasses.replace(sizes, label_noise=(0.25, 0, 0, 0, 1)))
    clean = draw_moths(sizes)
    assert moths.images.equal(clean.images)
    assert moths.groups.equal(clean.groups)
    wrong = moths.labels != moths.groups
    assert not wrong[~moths.is_train].any()
    rates = [wrong[moths.is_train & (moths.groups == group)].float().mean().item() for group in range(5)]
    # 850 moths of the first group: four standard errors of 0.015.
    assert rates == [pytest.approx(0.25, abs=0.06), 0, 0, 0, 1]
    noisy = torch.bincount(moths.labels[wrong & (moths.groups == 0)], minlength=5)
    assert noisy[0] == 0
    assert noisy[1:].min() > 0.6 * noisy[1:].float().mean()


@pytest.mark.parametrize("group", range(5))
def test_a_group_gets_harder_with_its_difficulty(group: int, middling: np.ndarray) -> None:
    def accuracy(difficulty: float) -> float:
        return lda_accuracy(difficulty=[difficulty if g == group else 1 for g in range(5)])[group]

    # 300 moths each: 0.06 is about two standard errors of a difference.
    assert accuracy(0) - 0.06 > middling[group] > accuracy(3) + 0.06


def test_without_difficulty_a_linear_judge_is_nearly_always_right() -> None:
    assert lda_accuracy(difficulty=(0,) * 5).min() > 0.97


def test_a_moth_is_the_same_moth_at_every_size(sample: Moths) -> None:
    small, large = pooled(sample.images, 1), pooled(changed(image_size=96).images, 3)
    # Edges are a pixel wide, so they differ a little; the next moth differs by far more.
    assert np.abs(small - large).mean() < 6
    assert np.abs(small - np.roll(large, 1, axis=0)).mean() > 30


def test_extreme_settings_draw_without_a_warning() -> None:
    for size in (16, 200):
        moths = changed(train=20, image_size=size, difficulty=(10,) * 5, sizes=EQUAL)
        assert moths.images.float().std() > 20


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"train": 0}, "train is 0; expected a whole number from 5 to 1000000."),
        ({"test": 2.5}, "test is 2.5; expected a whole number from 5 to 1000000."),
        ({"image_size": 8}, "image_size is 8; expected a whole number from 16 to 512."),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 4294967295."),
        ({"seed": True}, "seed is True; expected a whole number from 0 to 4294967295."),
        ({"sizes": (1.0,)}, "sizes is (1.0,); expected 5 positive shares that add up to 1, one for each of"),
        ({"sizes": (0.3,) * 5}, "expected 5 positive shares that add up to 1"),
        ({"sizes": (1, 0, 0, 0, 0)}, "expected at least one image in each group, so raise one of the two."),
        ({"train": 6}, "train is 6 and sizes is (0.425,"),
        ({"difficulty": (1, 1, 1, 1, -1)}, "expected 5 numbers from 0 to 10, one for each of Alder,"),
        ({"difficulty": "11111"}, "difficulty is '11111'; expected 5 numbers from 0 to 10"),
        ({"difficulty": (1, 1, 1, 1, float("nan"))}, "expected 5 numbers from 0 to 10"),
        ({"label_noise": (0, 0, 0, 0, 1.5)}, "expected 5 fractions from 0 to 1"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(knobs: dict, sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        MothSettings(**knobs)
