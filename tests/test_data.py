import pytest
import torch

from fairq_utils import data
from fairq_utils.errors import BadInput
from fairq_utils.moths import GROUPS


def test_moths_are_split_and_named():
    images = data.load(data.settings("moths", train_images=60, test_images=40, image_size=16))
    assert images.images.shape == (100, 3, 16, 16)
    assert images.images.dtype == torch.uint8
    assert int(images.is_train.sum()) == 60
    assert images.group_names == images.label_names == GROUPS
    assert torch.equal(images.labels, images.groups)


def test_the_fingerprint_is_that_of_the_content():
    def fingerprint(**changes) -> str:
        images = data.load(data.settings("moths", train_images=30, test_images=30, image_size=16))
        for name, change in changes.items():
            change(getattr(images, name))
        return images.fingerprint

    same = fingerprint()
    assert fingerprint() == same
    assert fingerprint(images=lambda tensor: tensor[7, 1].fill_(3)) != same
    assert fingerprint(labels=lambda tensor: tensor[3].fill_(4)) != same
    assert fingerprint(groups=lambda tensor: tensor[3].fill_(4)) != same
    assert fingerprint(is_train=lambda tensor: tensor[3].fill_(False)) != same


def test_an_unknown_name_is_refused():
    with pytest.raises(BadInput, match="dataset is 'mooths'; expected one of: moths"):
        data.settings("mooths")
