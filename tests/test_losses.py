import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst import losses
from arbitrary_nst.losses import (
    content_loss,
    gram_loss,
    lattice,
    moment_loss,
    relative_content_loss,
    relative_difference,
    relative_gram_loss,
    relative_moment_loss,
    repetition,
    squared_difference,
    total_variation,
)
from arbitrary_nst.statistics import mean_std

CONTENT = [content_loss, relative_content_loss]
STYLE = [moment_loss, gram_loss, relative_moment_loss, relative_gram_loss]


@pytest.mark.parametrize("loss", CONTENT + STYLE)
def test_equal_features_cost_nothing(loss):
    features = torch.randn(2, 3, 4, 5)
    assert loss(features, features.clone()).item() == 0


@pytest.mark.parametrize("loss", CONTENT + STYLE)
def test_batch_costs_the_mean_of_its_samples(loss):
    output, target = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    singles = [loss(a[None], b[None]) for a, b in zip(output, target, strict=True)]
    assert_close(loss(output, target), torch.stack(singles).mean())


@pytest.mark.parametrize("loss", STYLE)
def test_one_style_of_another_size_serves_the_whole_batch(loss):
    output, style = torch.randn(3, 4, 5, 5), torch.randn(1, 4, 7, 2)
    assert_close(loss(output, style), loss(output, style.expand(3, -1, -1, -1)))


@pytest.mark.parametrize("loss", CONTENT + STYLE)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_difference_costs_something(loss, seed):
    generator = torch.Generator().manual_seed(seed)
    output, target = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    assert 0 < loss(output, target).item() < float("inf")


@pytest.mark.parametrize("loss", CONTENT + STYLE)
def test_gradient_is_the_numerical_one(loss, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # float64 all the way
    target = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    output = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda features: loss(features, target), output)


@pytest.mark.parametrize("loss", CONTENT + STYLE)
def test_bfloat16_features_cost_a_float32(loss):
    output, target = torch.randn(2, 3, 8, 8).bfloat16(), torch.randn(2, 3, 8, 8).bfloat16()
    value = loss(output, target)
    assert value.dtype == torch.float32
    assert_close(value, loss(output.float(), target.float()), rtol=0.05, atol=0)


@pytest.mark.parametrize("loss", [relative_content_loss, relative_gram_loss])
def test_relative_losses_do_not_know_the_unit_of_features(loss):
    output, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert_close(loss(output * 100, target * 100), loss(output, target))


def test_relative_content_loss_does_not_know_the_origin_of_features():
    output, content = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert_close(relative_content_loss(output + 5, content + 5), relative_content_loss(output, content))


def test_relative_content_loss_is_one_for_the_mean_of_the_content():
    content = torch.randn(1, 8, 32, 32)
    flat = content.mean().expand_as(content)
    assert_close(relative_content_loss(flat, content), torch.tensor(1.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss", [relative_content_loss, relative_moment_loss, relative_gram_loss])
def test_relative_losses_of_an_empty_target_are_finite(loss):
    assert torch.isfinite(loss(torch.rand(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)))


def test_relative_difference_by_hand():
    output, target = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert_close(relative_difference(output, target), torch.tensor((16 / 9 + 0) / 2))


def test_content_loss_by_hand():
    assert content_loss(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0]]]])).item() == 2.5


def test_moment_loss_is_the_sum_of_the_two_mean_squares_of_the_paper():
    output, style = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 6, 6)
    means, stds = zip(mean_std(output), mean_std(style), strict=True)
    by_hand = sum((ours - theirs).square().mean() for ours, theirs in (means, stds))
    assert_close(moment_loss(output, style), by_hand)


def test_gram_loss_by_hand():
    output = torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]])  # gram ((1, 1), (1, 2))
    style = torch.tensor([[[[2.0]], [[0.0]]]])  # gram ((4, 0), (0, 0))
    assert gram_loss(output, style).item() == (9 + 1 + 1 + 4) / 4


def test_total_variation_of_a_constant_is_zero():
    assert total_variation(torch.full((2, 3, 4, 5), 0.3)).item() == 0


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]]])
    down, across = (0 + 1 + 9) / 3, (1 + 4 + 0 + 0) / 4
    assert_close(total_variation(image), torch.tensor(down + across))


@pytest.mark.parametrize(("height", "width", "expected"), [(1, 1, 0.0), (1, 3, 1.0), (3, 1, 1.0)])
def test_total_variation_of_a_single_row_or_column_is_finite(height, width, expected):
    ramp = torch.arange(height * width).float().view(1, 1, height, width)
    assert total_variation(ramp).item() == expected


def test_absolute_total_variation_by_hand():
    image = torch.tensor([[0.0, 0.5], [1.0, 0.5]]).expand(1, 3, 2, 2)
    assert_close(total_variation(image, power=1), torch.tensor((1.0 + 0.0) / 2 + (0.5 + 0.5) / 2))


def test_squared_difference_by_hand_with_one_target_for_all():
    statistics = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert_close(squared_difference(statistics, torch.tensor([[1.0, 4.0]])), torch.tensor((0 + 4 + 4 + 4) / 4))


@pytest.mark.parametrize("loss", CONTENT + STYLE)
def test_gradient_keeps_the_memory_format_of_the_features(loss):
    """Sums of gradients in two formats are what a step of an optimization would wait for."""
    features = torch.randn(1, 4, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    target = torch.randn(1, 4, 6, 5).to(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(loss(features, target), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_every_public_loss_is_tested_here():
    public = {name: value for name, value in vars(losses).items() if not name.startswith("_")}
    defined = {name for name, value in public.items() if getattr(value, "__module__", "") == losses.__name__}
    others = [squared_difference, relative_difference, total_variation, lattice, repetition]
    assert defined == {loss.__name__ for loss in [*CONTENT, *STYLE, *others]}


# Lattice


def test_smooth_and_random_pictures_have_no_lattice():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert lattice(ramp) < 1.1 * (8 / 64) ** 2 / 12  # what a ramp rises within one cell
    assert lattice(torch.full((2, 3, 32, 40), 0.3)) < 1e-12
    assert lattice(torch.rand(1, 3, 800, 800)) < 2e-5  # 1 / 12 by chance, divided by 10,000 cells


@pytest.mark.parametrize("period", [2, 4, 8])
def test_what_repeats_with_a_divisor_of_the_period_is_measured(period):
    columns = torch.where(torch.arange(64) % period == 0, 1.0, 0.0).expand(1, 3, 64, 64)
    assert_close(lattice(columns), torch.tensor((1 / period) * (1 - 1 / period)))


def test_a_lattice_of_another_period_averages_out():
    columns = torch.where(torch.arange(840) % 7 == 0, 1.0, 0.0).expand(1, 1, 16, 840)
    assert lattice(columns) < 1e-4


def test_what_lies_beyond_whole_cells_is_left_out():
    image = torch.rand(1, 3, 24, 32)
    assert lattice(image) == lattice(torch.nn.functional.pad(image, (0, 7, 0, 5), value=9.0))


# Repetition


def stamped(period: int, size: int = 160, alternating: bool = False) -> torch.Tensor:
    """The same random mark at every place of a lattice, here and there of either sign."""
    mark = torch.rand(period, period, generator=torch.Generator().manual_seed(3)) - 0.5
    count = -(-size // period)
    marks = mark.repeat(count, count)
    if alternating:
        signs = 1.0 - 2.0 * ((torch.arange(count)[:, None] + torch.arange(count)) % 2)
        marks = marks * signs.repeat_interleave(period, 0).repeat_interleave(period, 1)
    return (0.5 + 0.4 * marks)[None, None, :size, :size].expand(1, 3, size, size)


def test_marks_that_come_again_every_period_are_measured():
    assert repetition(stamped(8)) > 0.95
    assert repetition(stamped(8, alternating=True)) > 0.95
    assert lattice(stamped(8, alternating=True)) < 1e-3


def test_marks_of_another_period_and_noise_are_not():
    assert repetition(stamped(11)) < 0.1
    assert repetition(torch.rand(1, 3, 160, 160)) < 0.01
    assert repetition(torch.full((1, 3, 160, 160), 0.3)) < 1e-12


def test_marks_in_one_part_of_a_picture_count_there():
    image = torch.rand(1, 3, 160, 320)
    image[..., 160:] = stamped(8)
    assert 0.3 < repetition(image) < 0.6


def test_a_picture_of_less_than_a_window_has_no_repetition():
    image = torch.rand(1, 3, 63, 200, requires_grad=True)
    assert repetition(image) == 0
