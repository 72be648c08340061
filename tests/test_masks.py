import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.masks import is_covered, mask_shares, stretched, weighted_masks


def test_weighted_masks_keep_what_is_covered():
    one, two = torch.tensor([[[[1.0, 1.0, 0.0, 0.5]]]]), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    shares = weighted_masks([one, two], [3.0, 1.0])
    assert torch.allclose(shares[:, 0, 0], torch.tensor([[0.75, 1, 0, 0.5], [0.25, 0, 0, 0]]))
    assert weighted_masks([one, torch.ones(1, 1, 6, 8)], [1.0, 1.0]).shape == (2, 1, 6, 8)
    assert not weighted_masks([one], [0.0]).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 40))
def test_stretched_masks_are_interpolated_and_a_part_is_that_of_the_whole(height, width, rows, columns):
    masks = torch.rand(2, 1, height, width)
    whole = stretched(masks, (rows, columns), (0, rows), (0, columns))
    expected = nn.functional.interpolate(masks, (rows, columns), mode="bilinear", align_corners=False)
    assert_close(whole, expected, atol=1e-5, rtol=0)
    part = stretched(masks, (rows, columns), (rows // 2, rows), (columns // 3, columns))
    assert torch.equal(part, whole[:, :, rows // 2 :, columns // 3 :])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_shares_are_one_together(styles, height, width, seed):
    masks = torch.rand(styles, 1, height, width, generator=torch.Generator().manual_seed(seed))
    shares = mask_shares(masks, (20, 30), (0, 20), (0, 30))
    assert len(shares) == styles + 1
    assert_close(sum(shares), torch.ones(1, 1, 20, 30))
    assert min(float(share.min()) for share in shares) >= 0


def test_what_is_covered_may_lack_less_than_half_a_level():
    masks = torch.full((2, 1, 3, 4), 0.5)
    assert is_covered(masks)
    masks[0, 0, 1, 2] -= 0.4 / 256
    assert is_covered(masks)
    masks[0, 0, 1, 2] -= 1 / 256
    assert not is_covered(masks)
