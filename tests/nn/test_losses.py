import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.nn import losses
from arbitrary_nst.nn.losses import (
    autocorrelation_loss,
    checkerboard_loss,
    content_loss,
    relative_content_loss,
    relative_difference,
    squared_difference,
    total_variation,
)
from arbitrary_nst.nn.perceptual import PerceptualLoss, blended
from arbitrary_nst.nn.statistics import mean_std


def style_loss(**options):
    """A style term of one layer, as a function of the features of output and style image."""
    loss = PerceptualLoss(**options)

    def call(output, style):
        (term,) = loss({"layer": output}, {}, loss.statistics({"layer": style})).values()
        return term

    return call


ONE = {"layer": 1.0}
gram_loss, moment_loss = style_loss(gram=ONE), style_loss(moments=ONE)
relative_gram_loss, relative_moment_loss = style_loss(gram=ONE, relative=True), style_loss(moments=ONE, relative=True)

CONTENT = [content_loss, relative_content_loss]
STYLE = [moment_loss, gram_loss, relative_moment_loss, relative_gram_loss]
OF_SETS = {
    *("cosine_distance", "euclidean_distance", "paired_cosine_distance", "paired_euclidean_distance"),
    *("relaxed_emd_loss", "nearest_neighbor_loss", "self_similarity_loss", "covariance_loss"),
    *("sample_positions", "sample_structure", "vectors_at", "take_vectors"),
}
"""Tested in test_set_losses.py."""


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


def test_moment_loss_is_half_the_sum_of_the_two_mean_squares_of_the_paper():
    output, style = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 6, 6)
    means, stds = zip(mean_std(output), mean_std(style), strict=True)
    by_hand = sum((ours - theirs).square().mean() for ours, theirs in (means, stds))
    assert_close(moment_loss(output, style), by_hand / 2)


def test_gram_loss_by_hand():
    output = torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]])  # gram ((1, 1), (1, 2))
    style = torch.tensor([[[[2.0]], [[0.0]]]])  # gram ((4, 0), (0, 0))
    assert gram_loss(output, style).item() == (9 + 1 + 1 + 4) / 4


@pytest.mark.parametrize("relative", [False, True])
def test_perceptual_terms_are_weighted_sums_over_layers(relative):
    ours, content, style = ({"a": torch.rand(1, 3, 4, 4), "b": torch.rand(1, 2, 3, 3)} for _ in range(3))
    loss = PerceptualLoss({"b": 2.0}, {"a": 0.5, "b": 3.0}, {"a": 4.0}, relative)
    terms = loss(ours, {"b": content["b"]}, loss.statistics(style))
    compare = relative_content_loss if relative else content_loss
    gram = style_loss(gram=ONE, relative=relative)
    assert_close(terms["content"], 2 * compare(ours["b"], content["b"]))
    assert_close(terms["gram"], 0.5 * gram(ours["a"], style["a"]) + 3 * gram(ours["b"], style["b"]))
    assert_close(terms["moments"], 4 * style_loss(moments=ONE, relative=relative)(ours["a"], style["a"]))
    assert loss(ours, {}, {}) == {}


def test_blended_statistics_by_hand():
    each = [{"gram": {"a": torch.tensor([1.0, 2.0])}}, {"gram": {"a": torch.tensor([3.0, 6.0])}}]
    assert_close(blended(each, [0.25, 0.75])["gram"]["a"], torch.tensor([2.5, 5.0]))


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


def test_every_public_loss_is_tested():
    public = {name: value for name, value in vars(losses).items() if not name.startswith("_")}
    defined = {name for name, value in public.items() if getattr(value, "__module__", "") == losses.__name__}
    others = [squared_difference, relative_difference, total_variation, checkerboard_loss, autocorrelation_loss]
    assert defined == {loss.__name__ for loss in [*CONTENT, *others]} | OF_SETS


# Lattice


def test_smooth_and_random_pictures_have_no_checkerboard():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert checkerboard_loss(ramp) < 1.1 * (8 / 64) ** 2 / 12  # what a ramp rises within one cell
    assert checkerboard_loss(torch.full((2, 3, 32, 40), 0.3)) < 1e-12
    assert checkerboard_loss(torch.rand(1, 3, 800, 800)) < 2e-5  # 1 / 12 by chance, divided by 10,000 cells


@pytest.mark.parametrize("period", [2, 4, 8])
def test_what_repeats_with_a_divisor_of_the_period_is_measured(period):
    columns = torch.where(torch.arange(64) % period == 0, 1.0, 0.0).expand(1, 3, 64, 64)
    assert_close(checkerboard_loss(columns), torch.tensor((1 / period) * (1 - 1 / period)))


def test_a_checkerboard_of_another_period_averages_out():
    columns = torch.where(torch.arange(840) % 7 == 0, 1.0, 0.0).expand(1, 1, 16, 840)
    assert checkerboard_loss(columns) < 1e-4


def test_what_lies_beyond_whole_cells_is_left_out():
    image = torch.rand(1, 3, 24, 32)
    assert checkerboard_loss(image) == checkerboard_loss(torch.nn.functional.pad(image, (0, 7, 0, 5), value=9.0))


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
    assert autocorrelation_loss(stamped(8)) > 0.95
    assert autocorrelation_loss(stamped(8, alternating=True)) > 0.95
    assert checkerboard_loss(stamped(8, alternating=True)) < 1e-3


def test_marks_of_another_period_and_noise_are_not():
    assert autocorrelation_loss(stamped(11)) < 0.1
    assert autocorrelation_loss(torch.rand(1, 3, 160, 160)) < 0.01
    assert autocorrelation_loss(torch.full((1, 3, 160, 160), 0.3)) < 1e-12


def test_marks_in_one_part_of_a_picture_count_there():
    image = torch.rand(1, 3, 160, 320)
    image[..., 160:] = stamped(8)
    assert 0.3 < autocorrelation_loss(image) < 0.6


def test_a_picture_of_less_than_a_window_has_no_autocorrelation():
    image = torch.rand(1, 3, 63, 200, requires_grad=True)
    assert autocorrelation_loss(image) == 0
