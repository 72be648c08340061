"""Laplacian pyramids: nothing is lost, and each level holds the details of its size."""

import pytest
import torch
from torch.testing import assert_close

from arbitrary_nst.nn.pyramids import collapse, interpolate, laplacian_pyramid, with_details_of


@pytest.mark.parametrize("extent", [(16, 16), (13, 7), (1, 5), (40, 3)])
def test_a_pyramid_gives_its_image_back(extent):
    image = torch.rand(2, 3, *extent)
    pyramid = laplacian_pyramid(image, 5)
    assert len(pyramid) == 6
    assert_close(collapse(pyramid), image)


def test_levels_are_halved_and_a_flat_image_has_no_details():
    *details, rest = laplacian_pyramid(torch.full((1, 3, 12, 20), 0.3), 2)
    assert [tuple(level.shape[2:]) for level in details] == [(12, 20), (6, 10)]
    assert max(level.abs().max() for level in details) < 1e-6
    assert_close(rest, torch.full((1, 3, 3, 5), 0.3))


def test_details_by_hand():
    """Pairs of 0 and 1 have the mean 1/2; what halving takes away is the half above or below it."""
    image = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 3, 4, 4)
    assert_close(laplacian_pyramid(image, 1)[0], image - 0.5)
    assert_close(with_details_of(torch.full((1, 3, 4, 4), 0.2), image), image - 0.3)


def test_interpolation_keeps_pixel_centres():
    ramp = torch.linspace(0.5, 7.5, 8).expand(1, 1, 2, 8)
    assert_close(interpolate(ramp, (2, 4), "bilinear"), torch.tensor([1.0, 3.0, 5.0, 7.0]).expand(1, 1, 2, 4))
