import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fairq_utils.training import small_convolutions
from fairq_utils.training.architectures import build
from fairq_utils.training.loop import predict
from fairq_utils.training.small_convolutions import ConvolutionsAsProducts

SIDE = st.integers(1, 6)


@given(
    kernel=st.tuples(SIDE, SIDE),
    image=st.tuples(SIDE, SIDE),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    with_bias=st.booleans(),
)
def test_value_and_gradients_are_those_of_the_convolution(kernel, image, stride, padding, with_bias):
    if any(side + 2 * beside < own for side, beside, own in zip(image, padding, kernel, strict=True)):
        return
    random = torch.Generator().manual_seed(0)
    given_ = [torch.randn(2, 3, *image), torch.randn(4, 3, *kernel), *([torch.randn(4)] if with_bias else [])]
    given_ = [torch.randn(t.shape, generator=random, dtype=torch.float64).requires_grad_() for t in given_]
    expected = F.conv2d(*given_, stride=stride, padding=padding)
    with ConvolutionsAsProducts():
        found = F.conv2d(*given_, stride=stride, padding=padding)
    torch.testing.assert_close(found, expected)
    toward = torch.randn(expected.shape, generator=random, dtype=torch.float64)
    for own, other in zip(
        torch.autograd.grad(found, given_, toward, materialize_grads=True),
        torch.autograd.grad(expected, given_, toward, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


def convolutions(monkeypatch) -> list[bool]:
    """Of each convolution from here on, whether it became a product."""
    found = []
    own = small_convolutions._as_product

    def watched(*args, **options):
        product = own(*args, **options)
        found.append(product is not None)
        return product

    monkeypatch.setattr(small_convolutions, "_as_product", watched)
    return found


@pytest.mark.parametrize(("image_size", "small"), [(32, 10), (64, 5), (128, 0)])
def test_of_a_resnet_the_layers_at_the_end_become_products(monkeypatch, image_size, small):
    network = build("resnet18", classes=5, image_size=image_size)
    images = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    became = convolutions(monkeypatch)
    predict(network, images)
    assert became == [False] * (20 - small) + [True] * small


def test_other_convolutions_are_left_alone(monkeypatch):
    became = convolutions(monkeypatch)
    images, kernel = torch.ones(1, 4, 2, 2), torch.ones(4, 4, 1, 1)
    with ConvolutionsAsProducts():
        F.conv2d(images, torch.ones(4, 1, 1, 1), groups=4)
        F.conv2d(images, kernel, padding="same")
        F.conv2d(images[0], kernel)
        F.conv2d(images, torch.ones(4, 4, 2, 2), dilation=2, padding=1)
        F.conv2d(torch.ones(1, 4, 3, 2), kernel)
        F.conv2d(images.to("meta"), kernel.to("meta"))
        assert became == [False] * 6
        F.conv2d(images, kernel)
    assert became == [*[False] * 6, True]
    F.conv2d(images, kernel)
    assert len(became) == 7  # outside the block nothing is asked


def test_it_can_be_differentiated_twice():
    """The curvature of a loss asks for it."""
    images, kernel = (torch.randn(2, 3, 2, 2).double(), torch.randn(4, 3, 3, 3).double().requires_grad_())

    def squares(kernel: torch.Tensor) -> torch.Tensor:
        with ConvolutionsAsProducts():
            return F.conv2d(images, kernel, padding=1).square()

    assert torch.autograd.gradgradcheck(squares, kernel)
