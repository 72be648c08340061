import pytest
import torch
from torch.testing import assert_close

from arbitrary_nst.models.hrnet import Bottleneck, HRNet


def bottleneck(channels: int, filters: int) -> int:
    """Weights of a bottleneck of width q = filters / 4, and of its shortcut."""
    q = filters // 4
    return channels * q + 9 * q * q + q * filters + (channels * filters if channels != filters else 0)


def test_parameters_are_those_of_the_stated_widths():
    blocks = [(3, 16), (16, 32), (32, 32), (32, 32), (64, 64), (192, 64), (64, 32), (32, 16)]
    strided = (9 * 16 * 32 + 32) + 3 * (9 * 32 * 32 + 32)
    expected = sum(bottleneck(*widths) for widths in blocks) + strided + (9 * 16 * 3 + 3)
    assert sum(parameter.numel() for parameter in HRNet().parameters()) == expected == 64_015


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (37, 50), (41, 43), (64, 64)])
def test_picture_is_exactly_as_large_as_the_photo_and_in_zero_to_one(size):
    picture = HRNet()(torch.rand(1, 3, *size))
    assert picture.shape == (1, 3, *size)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_gradient_reaches_every_parameter():
    network = HRNet()
    network(torch.rand(1, 3, 21, 26)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_batch_equals_the_stack_of_its_photos():
    network, photos = HRNet(), torch.rand(2, 3, 24, 20)
    assert_close(network(photos), torch.cat([network(photo[None]) for photo in photos]), atol=1e-5, rtol=1e-5)


def test_network_can_be_fitted_to_a_picture():
    network, photo, target = HRNet(), torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = (network(photo) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_bottleneck_adds_its_input():
    block, maps = Bottleneck(8, 8), torch.rand(1, 8, 6, 6)
    assert (block(maps) >= maps).all()  # what is added is not negative, nor are the maps
