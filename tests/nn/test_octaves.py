import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.image import resize
from arbitrary_nst.models import ghiasi2017
from arbitrary_nst.nn.octaves import (
    ANCHORED,
    NOISE,
    NOISE_SIDE,
    Octave,
    anchor,
    count_octaves,
    double,
    guide,
    halve,
    noise,
    pyramid,
    with_noise,
)
from arbitrary_nst.stylization.stylizer import Stylizer


@pytest.mark.parametrize(
    ("extent", "octaves"),
    [((1, 1), 1), ((512, 800), 1), ((899, 1023), 1), ((900, 1200), 2), ((1799, 8000), 2), ((3000, 4000), 3)],
)
def test_every_doubling_is_an_octave(extent, octaves):
    assert count_octaves(*extent) == octaves


def test_halving_takes_means_and_doubling_interpolates():
    image = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]).expand(1, 3, 2, 2)
    assert_close(halve(image), torch.full((1, 3, 1, 1), 3.0))
    assert_close(double(image)[0, 0, 0], torch.tensor([0.0, 0.5, 1.5, 2.0]))


def test_a_picture_painted_as_it_was_is_guided_by_the_photo_and_any_change_is_carried_up():
    content = torch.rand(1, 3, 8, 12)
    coarse = halve(content)
    assert_close(guide(content, coarse, coarse), content)
    assert_close(guide(content, coarse, coarse + 0.25), content + 0.25)


@settings(max_examples=40, deadline=None)
@given(st.integers(17, 90), st.integers(17, 90), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_windows_are_parts_of_the_whole_continued_at_its_border(height, width, top, left, pixels):
    torch.manual_seed(0)
    content = torch.rand(1, 3, height, width)
    if pixels:
        content = content[0].mul(255).round().byte()
    coarse, whole = pyramid(content, 2)
    assert coarse.shape[-2:] == (-(-height // 2), -(-width // 2))
    octave = Octave(whole, coarse, torch.rand(coarse.shape, dtype=coarse.dtype))
    right, below = -width % 8, -height % 8
    view = octave.read((0, height), (0, width))
    assert view.guide is not None
    assert view.before is not None
    photo, guided = (F.pad(image, (0, right, 0, below), mode="replicate") for image in (view.content, view.guide))
    top, left = 4 * min(top, height // 4 - 2), 4 * min(left, width // 4 - 2)
    rows, columns = (top, height + below), (left, width + right)
    seen = octave.read(rows, columns)
    assert torch.equal(seen.content, photo[:, :, slice(*rows), slice(*columns)])
    assert seen.before is not None
    assert_close(seen.guide, guided[:, :, slice(*rows), slice(*columns)])
    assert torch.equal(seen.before, view.before[:, :, top // 2 :, left // 2 :])
    assert seen.inside == (height - top, width - left)
    painted = torch.rand(photo.shape)
    whole = octave.read((0, height), (0, width)).anchored(painted[:, :, :height, :width])
    part = seen.anchored(painted[:, :, slice(*rows), slice(*columns)])
    down, right = 8 * (top > 0), 8 * (left > 0)  # beyond what enlarging reaches
    assert_close(part[:, :, down : height - top, right : width - left], whole[:, :, top + down :, left + right :])


def test_noise_is_the_same_everywhere():
    field = noise((0, NOISE_SIDE), (0, NOISE_SIDE))
    assert field.shape == (1, 1, 1024, 1024)
    assert abs(field.mean()) < 1e-3
    assert field.std().item() == pytest.approx(NOISE)
    assert_close(field[0, 0, 0, :3], torch.tensor([-0.15267995, -0.00280959, -0.01705160]))
    whole = noise((-100, 2100), (900, 3200))
    assert_close(noise((2000, 2100), (1000, 3100)), whole[:, :, 2100:, 100:2200])
    assert_close(whole[:, :, 100:1124, 124:1148], field.roll((-397, -173), (2, 3)))  # row 0, column 1 of the squares
    assert_close(whole[:, :, 1124:2148, 124:1148], field.roll((-528, -784), (2, 3)))  # row 1, column 1


def test_noise_does_not_come_again_at_equal_distances():
    """Squares one and two sides apart, in any direction, at the shift that makes one pair of them equal."""
    plane = noise((0, 4096), (0, 4096))[0, 0]
    for down, across in ((0, 1), (1, 0), (1, 1), (0, 2)):
        for rows, columns in ((0, 0), (397, 173), (131, 611), (528, 784)):
            there = plane[1024 * down + rows :, 1024 * across + columns :]
            here = plane[: there.shape[0], : there.shape[1]]
            assert abs((here * there).mean()) < 0.3 * NOISE**2


def test_noise_differs_the_more_the_further_apart():
    """White noise would differ by the root of two at any distance; each smooth part joins what is nearer than it."""
    field = noise((0, NOISE_SIDE), (0, NOISE_SIDE))
    apart = [((field - field.roll(by, 3)).std() / NOISE).item() for by in (1, 4, 64)]
    assert apart == pytest.approx([0.66, 1.11, 2**0.5], rel=0.02)


def test_the_first_octave_is_painted_from_the_photo_and_noise():
    photo = torch.rand(1, 3, 40, 48)
    view = Octave(photo).read((8, 40), (16, 48))
    assert view.first
    assert_close(view.guide, with_noise(photo)[:, :, 8:, 16:])


def test_an_anchored_picture_is_held_to_the_octave_before():
    painted, before = torch.rand(1, 3, 16, 24), torch.rand(1, 3, 8, 12)
    assert_close(
        anchor(torch.full((1, 3, 16, 24), 0.3), torch.full((1, 3, 8, 12), 0.7)), torch.full((1, 3, 16, 24), 0.7)
    )
    assert_close(anchor(painted, halve(painted)), painted)
    error = (halve(halve(anchor(painted, before))) - halve(before)).abs().mean()
    assert error < 0.6 * (halve(halve(painted)) - halve(before)).abs().mean()


def test_strokes_of_the_octave_before_stay_in_part():
    stripes = torch.tensor([0.0, 1.0]).repeat(12).expand(1, 3, 16, 24)  # gone at half the size
    kept = halve(anchor(torch.full((1, 3, 32, 48), 0.5), stripes))
    contrast = (kept[..., 1::2] - kept[..., ::2])[..., 2:-2, 1:-1]  # enlarged and halved again, half of it is left
    assert_close(contrast, torch.full_like(contrast, 0.5 * ANCHORED))


def test_octaves_of_8_bit_pixels_are_those_of_the_image():
    pixels = torch.randint(256, (3, 301, 75), dtype=torch.uint8)
    for ours, theirs in zip(pyramid(pixels, 3)[:2], pyramid(pixels[None] / 255, 3)[:2], strict=True):
        assert_close(ours.float(), theirs, atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def stylizer(light_model):
    model = copy.deepcopy(light_model)
    for parameter in model.transformer.trunk.parameters():
        if not parameter.any():  # what begins as no change at all
            torch.nn.init.normal_(parameter, std=0.1)
    return Stylizer(model, "cpu", "float32")


@pytest.mark.parametrize(("size", "first"), [((900, 1100), (512, 626)), ((1600, 1024), (800, 512)), ((730, 700), None)])
def test_the_first_of_several_octaves_has_the_same_size_for_all_pictures(size, first):
    levels = pyramid(torch.rand(1, 3, *size), count_octaves(*size))
    assert levels[0].shape[2:] == (first or size)
    for octaves in range(1, len(levels)):  # fewer than the picture has: none is resized
        assert pyramid(levels[-1], octaves)[0].shape == levels[-octaves].shape


def test_what_an_octave_is_painted_from_is_resized_to_half_its_size():
    content, coarse, painted = torch.rand(1, 3, 61, 90), torch.rand(1, 3, 48, 70), torch.rand(1, 3, 48, 70)
    view = Octave(content, coarse, painted).read((0, 61), (0, 90))
    same = Octave(content, resize(coarse, (31, 45)), resize(painted, (31, 45))).read((0, 61), (0, 90))
    assert view.guide is not None
    assert view.before is not None
    assert same.guide is not None
    assert same.before is not None
    assert_close(view.guide, same.guide)
    assert_close(view.before, same.before)


@pytest.fixture
def small_octaves(monkeypatch):
    """Pictures of 512 pixels have two octaves, of which the first has 256."""
    monkeypatch.setattr("arbitrary_nst.nn.octaves.FIRST_OCTAVE", 256)
    monkeypatch.setattr("arbitrary_nst.nn.octaves.SMALLEST_LEVEL", 225)


@pytest.mark.usefixtures("small_octaves")
def test_pictures_are_painted_octave_by_octave(stylizer):
    content, code = torch.rand(1, 3, 530, 514), stylizer.encode_style(torch.rand(1, 3, 96, 96))
    smallest = resize(halve(content), 256)
    with torch.no_grad():
        first = resize(stylizer.model(smallest, code).clamp(0, 1), (265, 257))
        coarse = resize(smallest, (265, 257))
        guided = with_noise(guide(content, coarse, first))
        second = anchor(stylizer.model(content, code, guided, first=False), first).clamp(0, 1)
    assert_close(stylizer(content, code), second, atol=1e-3, rtol=0)
    assert_close(stylizer(content, code, octaves=1), stylizer.model(content, code).detach(), atol=1e-3, rtol=0)
    assert (stylizer(content, code, octaves=1) - second).abs().mean() > 1e-2


@pytest.mark.usefixtures("small_octaves")
@pytest.mark.parametrize("cache_trunk", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_octaves_in_tiles_are_those_of_the_whole(stylizer, cache_trunk, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.stylization.runner.CACHE_MEMORY", 2**40 if cache_trunk else 0)
    content, code = torch.rand(1, 3, 517, 523), stylizer.encode_style(torch.rand(1, 3, 96, 96))
    whole = stylizer(content, code)
    assert_close(stylizer(content, code, tile=400 if cache_trunk else 512), whole, atol=2e-3, rtol=0)
    pixels = content[0].mul(255).round().byte()
    painted = stylizer.paint_pixels(pixels, code)
    assert (painted.float() - stylizer(pixels[None] / 255, code)[0] * 255).abs().mean() < 0.5


def test_a_painting_is_seen_at_one_size_for_the_first_octave_and_at_twice_that_for_the_others(stylizer):
    painting = torch.rand(1, 3, 800, 900)
    code = stylizer.encode_style(painting, size=200)
    small, large = (
        stylizer.encode_style(
            F.interpolate(painting, (side, side * 9 // 8), mode="bicubic", antialias=True).clamp(0, 1), None
        )
        for side in (200, 400)
    )
    half = code.shape[1] // 2
    assert_close(code[:, :half], small[:, :half], atol=1e-3, rtol=1e-3)
    assert_close(code[:, half:], large[:, half:], atol=1e-3, rtol=1e-3)


def test_a_model_without_octaves_costs_no_noise(monkeypatch):
    stylizer = Stylizer(ghiasi2017(pretrained=False), "cpu", "float32")
    content, code = torch.rand(1, 3, 70, 90), torch.rand(1, stylizer.model.code_size)
    expected = stylizer.model(content, code)

    def unneeded(*_):
        raise AssertionError

    monkeypatch.setattr("arbitrary_nst.nn.octaves.noise", unneeded)
    assert_close(stylizer(content, code), expected, atol=1e-3, rtol=0)
    assert stylizer(content, code, tile=64).shape == content.shape


@pytest.mark.parametrize("octaves", [0, -1])
def test_no_octaves_are_refused(stylizer, octaves):
    with pytest.raises(ValueError, match="octaves"):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(1, stylizer.model.code_size), octaves=octaves)
