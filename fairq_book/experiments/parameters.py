"""The parameters of a study, once: commands make their options of them, and notebooks their checks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# What lies beyond was mistyped: nothing so large ends while somebody waits for it.
MOST_SEED = 2**32 - 1
MOST_EPOCHS = 10_000
MOST_NUMBERS = 1_000  # of seeds, or of whatever else a range lists
MOST_WORKERS = max(16, 4 * (os.cpu_count() or 1))


def parameter(default: Any, help: str) -> Any:
    """A field with a word of help, from which commands make their options and notebooks their checks."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class StudyParameters:
    """What a notebook or a command may say of the networks that it studies, as plain values.

    Nothing ("" or 0) stands for the default: the data set's own label and group, all of its images, the
    recipes' own epochs, where `tuning_epochs` are those of treatments that train.
    """

    dataset: str = parameter("moths", "what the images are of; `fairq data --help` lists what there is")
    root: str = parameter("", "where your copy of it lies; the moths need none")
    label: str = parameter("", "what is predicted; empty for the data set's own")
    group: str = parameter("", "whom to compare; empty for the data set's own")
    image_size: int = parameter(32, "pixels along a side")
    train_images: int = parameter(0, "at most so many to learn from; 0 for all, of moths 6000")
    test_images: int = parameter(0, "at most so many to be tested on; 0 for all, of moths 6000")
    arch: str = parameter("resnet18-16", "the network")
    weights: str = parameter("", "imagenet: begin with these, from a file you have")
    epochs: float = parameter(0, "passes over the training images; 0 for the recipe's own")
    learning_rate: float = parameter(0, "the highest of the training; 0 for the recipe's own")
    tuning_epochs: float = parameter(0, "passes of treatments that train, such as qat; 0 for their own")
    seeds: Sequence[int] | str = parameter((0, 1, 2, 3, 4), "one network is trained from each")
