import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.image import save_image
from arbitrary_nst.image.masks import check_regions, load_mask, load_regions, mask_shares, stretched, weighted_masks


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
def test_shares_are_together_what_masks_cover(styles, height, width, seed):
    masks = torch.rand(styles, 1, height, width, generator=torch.Generator().manual_seed(seed))
    shares = mask_shares(masks, (20, 30), (0, 20), (0, 30))
    assert len(shares) == styles
    covered = stretched(masks, (20, 30), (0, 20), (0, 30)).sum(0, keepdim=True).clamp(max=1)
    assert_close(sum(shares), covered, atol=1 / 512, rtol=0)
    assert min(float(share.min()) for share in shares) >= 0


@pytest.mark.parametrize(("lacking", "total"), [(0.4 / 256, 1.0), (1.4 / 256, 1 - 1.4 / 256)])
def test_what_is_covered_may_lack_less_than_half_a_level(lacking, total):
    masks = torch.tensor([0.5, 0.5 - lacking]).view(2, 1, 1, 1)
    assert float(sum(mask_shares(masks, (1, 1), (0, 1), (0, 1)))) == pytest.approx(total)


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_is_brightness_times_opacity(tmp_path, hidden, mode):
    """A brush on clear ground looks the same whatever colour is hidden there."""
    gray, opacity = Image.new("L", (8, 4), hidden), Image.new("L", (8, 4), 0)
    gray.paste(255, (0, 0, 4, 4))
    opacity.paste(255, (0, 0, 3, 4))
    opacity.paste(51, (3, 0, 4, 4))
    picture = Image.merge("LA", (gray, opacity)).convert(mode)
    picture.save(tmp_path / "mask.png")
    expected = torch.tensor([1, 1, 1, 0.2, 0, 0, 0, 0]).expand(1, 1, 4, 8)
    assert_close(load_mask(tmp_path / "mask.png", None), expected, atol=1e-5, rtol=0)


def test_a_large_mask_is_shrunk_with_its_opacity(tmp_path, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.image.masks.LARGEST_MASK", 16)
    picture = Image.new("LA", (64, 32), (255, 0))
    picture.paste((255, 255), (0, 0, 32, 32))
    picture.save(tmp_path / "mask.png")
    found = load_mask(tmp_path / "mask.png", None)
    assert found.shape == (1, 1, 16, 32)
    assert found[..., :14].min() > 0.99
    assert found[..., 18:].max() < 0.01


def test_regions_are_told_apart_by_plain_colours_whatever_jpeg_does(tmp_path):
    colors = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    picture = colors.T.float().repeat_interleave(16, 1)[None, :, None].expand(1, 3, 16, -1)
    for name in ("regions.png", "regions.jpg"):
        save_image(picture, tmp_path / name)
        labels = load_regions(tmp_path / name, None)
        assert labels.shape == (1, 1, 16, 128)
        assert labels[0, 0, 8, 8::16].tolist() == list(range(8))


def test_a_region_of_the_photo_alone_is_refused_by_its_colour():
    photo, painting = torch.tensor([0, 4, 7]).view(1, 1, 1, 3), torch.tensor([[7], [0]]).view(1, 1, 2, 1)
    with pytest.raises(ValueError, match="red"):
        check_regions(photo, [painting])
    check_regions(photo, [painting, torch.tensor([4]).view(1, 1, 1, 1)])
