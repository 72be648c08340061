"""Colours of one picture in another: by luminance, and by mean and covariance."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.image.color import luminance, match_covariance, with_colors_of

few_examples = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 9999)


def uniform(seed: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = (1, 3, 12, 17)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def correlated(seed: int, spread: float, side: int) -> torch.Tensor:
    """Colours around a middle gray, of which every channel has a part of the others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(3) + 0.4 * torch.rand(3, 3, generator=generator)
    values = torch.rand(3, side * (side + 1), generator=generator) - 0.5
    return (0.5 + spread * mixing @ values).view(1, 3, side, side + 1)


def mean_and_covariance(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = image[0].flatten(1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


# Luminance


@pytest.mark.parametrize(("channel", "weight"), [(0, 0.299), (1, 0.587), (2, 0.114)])
def test_luminance_of_pure_red_green_and_blue(channel, weight):
    image = torch.zeros(2, 3, 4, 5)
    image[:, channel] = 1
    assert_close(luminance(image), torch.full((2, 1, 4, 5), weight))


def test_luminance_of_gray_is_its_level():
    gray = torch.rand(2, 1, 4, 5)
    assert_close(luminance(gray.expand(-1, 3, -1, -1)), gray)


@few_examples
@given(seeds, seeds)
def test_colours_are_the_photos_and_luminance_the_paintings_where_nothing_is_clamped(first, second):
    stylized, content = uniform(first, 0.35, 0.65, (2, 3, 5, 7)), uniform(second, 0.35, 0.65, (2, 3, 5, 7))
    result = with_colors_of(stylized, content)
    assert_close(luminance(result), luminance(stylized))
    assert_close(result - luminance(result), content - luminance(content))


@few_examples
@given(seeds, seeds)
def test_what_leaves_the_range_is_clamped_and_all_else_is_as_without(first, second):
    assume(first != second)
    stylized, content = uniform(first), uniform(second)
    result = with_colors_of(stylized, content)
    wanted = content - luminance(content) + luminance(stylized)
    inside = (wanted >= 0) & (wanted <= 1)
    assert not inside.all()
    assert_close(result[inside], wanted[inside])
    assert ((result == 0) | (result == 1))[~inside].all()


def test_a_photo_in_its_own_luminance_is_itself():
    content = torch.rand(1, 3, 6, 8)
    assert_close(with_colors_of(content, content), content)


# Mean and covariance


@few_examples
@given(seeds, seeds, st.floats(0.05, 0.4), st.floats(0.05, 0.25))
def test_the_painting_has_mean_and_covariance_of_the_photo_where_nothing_is_clamped(first, second, wide, narrow):
    style, content = correlated(first, wide, 24), correlated(second, narrow, 13)
    matched = match_covariance(style, content)
    assume(matched.min() > 0 and matched.max() < 1)
    assert matched.shape == style.shape
    for ours, theirs in zip(mean_and_covariance(matched), mean_and_covariance(content), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_painting_recoloured_after_itself_is_itself():
    style = correlated(0, 0.4, 24)
    assert_close(match_covariance(style, style), style, rtol=0, atol=1e-5)


def test_the_map_is_linear_and_the_same_for_every_pixel():
    style, content = correlated(1, 0.4, 24), correlated(2, 0.2, 13)
    shuffled = torch.randperm(24 * 25)
    matched = match_covariance(style.flatten(2)[:, :, shuffled].view_as(style), content)
    assert_close(matched.flatten(2), match_covariance(style, content).flatten(2)[:, :, shuffled])


def test_a_gray_painting_takes_the_mean_and_its_noise_is_not_inflated():
    content = correlated(3, 0.2, 20)
    gray = torch.linspace(0.2, 0.8, 20 * 21).view(1, 1, 20, 21).expand(-1, 3, -1, -1)
    matched = match_covariance(gray, content)
    mean, covariance = mean_and_covariance(content)
    assert 0 < matched.min() < matched.max() < 1
    assert_close(mean_and_covariance(matched)[0], mean, rtol=0, atol=1e-4)

    noise = 1e-4 * (torch.rand(1, 3, 20, 21) - 0.5)
    most = (torch.linalg.eigvalsh(covariance).max() / 1e-5).sqrt().item()  # how far the map stretches at most
    assert (match_covariance(gray + noise, content) - matched).abs().max() < 2 * most * 1e-4


def test_a_painting_of_one_colour_takes_the_mean_of_the_photo():
    content = correlated(4, 0.2, 9)
    matched = match_covariance(torch.full((1, 3, 5, 6), 0.3), content)
    assert_close(matched, content.mean((2, 3), keepdim=True).expand(-1, -1, 5, 6))


def test_a_photo_of_one_colour_makes_the_painting_that_colour():
    colour = torch.tensor([0.7, 0.2, 0.4]).view(1, 3, 1, 1)
    matched = match_covariance(torch.rand(1, 3, 8, 9), colour.expand(-1, -1, 5, 6))
    assert_close(matched, colour.expand(-1, -1, 8, 9), rtol=0, atol=1e-4)


@few_examples
@given(seeds, seeds)
def test_the_result_is_in_range_whatever_the_colours(first, second):
    style, content = uniform(first).round(), uniform(second).round()  # only corners of the colour cube
    matched = match_covariance(style, content)
    assert matched.dtype == style.dtype
    assert 0 <= matched.min() <= matched.max() <= 1
