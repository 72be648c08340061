import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.nn.statistics import gram_matrix, mean_std, moments

few_examples = settings(max_examples=20, deadline=None)
shapes = st.tuples(*(st.integers(1, 4) for _ in range(4)))


def test_mean_std_of_two_by_two_by_hand():
    mean, std = mean_std(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]]]), eps=0.0)
    assert_close(mean.flatten(), torch.tensor([2.5, 2.0]))
    assert_close(std.flatten(), torch.tensor([1.25**0.5, 12**0.5]))  # divided by N = 4, not by 3


def test_mean_std_of_a_constant_is_the_constant_and_the_root_of_eps():
    mean, std = mean_std(torch.full((1, 2, 3, 5), 0.7), eps=1e-4)
    assert_close(mean.flatten(), torch.full((2,), 0.7))
    assert_close(std.flatten(), torch.full((2,), 1e-2))


@few_examples
@given(shapes, st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 99))
def test_mean_std_follow_scale_and_shift(shape, scale, shift, seed):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, std = mean_std(features, eps=0.0)
    scaled_mean, scaled_std = mean_std(features * scale + shift, eps=0.0)
    assert_close(scaled_mean, mean * scale + shift)
    assert_close(scaled_std, std * scale)


@pytest.mark.parametrize("statistic", [moments, gram_matrix])
def test_batch_equals_the_stack_of_its_samples(statistic):
    features = torch.randn(3, 4, 5, 6)
    assert_close(statistic(features), torch.cat([statistic(sample[None]) for sample in features]))


@pytest.mark.parametrize("statistic", [moments, gram_matrix])
def test_positions_may_be_shuffled(statistic):
    features = torch.randn(2, 3, 4, 5)
    shuffled = features.flatten(2)[:, :, torch.randperm(20)].view_as(features)
    assert_close(statistic(shuffled), statistic(features))


@pytest.mark.parametrize("statistic", [moments, gram_matrix])
def test_channels_last_memory_changes_nothing(statistic):
    features = torch.randn(2, 3, 4, 5)
    assert_close(statistic(features.to(memory_format=torch.channels_last)), statistic(features))


@pytest.mark.parametrize("statistic", [mean_std, moments, gram_matrix])
def test_gradient_is_the_numerical_one(statistic):
    assert torch.autograd.gradcheck(statistic, torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True))


def test_mean_std_is_the_same_with_and_without_gradient():
    features = torch.randn(2, 3, 4, 5)
    with_gradient = mean_std(features.clone().requires_grad_())
    assert all(torch.equal(a, b) for a, b in zip(with_gradient, mean_std(features), strict=True))


def test_mean_std_leaves_its_input_alone():
    features = torch.randn(2, 3, 4, 5)
    before = features.clone()
    mean_std(features)
    assert torch.equal(features, before)


def test_second_derivative_of_mean_std_is_refused_rather_than_wrong():
    features = torch.randn(1, 2, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_std(features)[1].square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_have_float32_statistics_and_gradients_like_themselves(dtype):
    features = (3 + torch.randn(1, 2, 16, 16)).to(dtype).requires_grad_()
    statistics = moments(features)
    assert statistics.dtype == gram_matrix(features).dtype == torch.float32
    assert_close(statistics, moments(features.detach().float()))
    statistics.sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == dtype


def test_moments_are_the_means_and_then_the_deviations():
    features = torch.randn(2, 3, 4, 5)
    mean, std = mean_std(features)
    assert torch.equal(moments(features), torch.cat([mean.view(2, 3), std.view(2, 3)], dim=1))


def test_gram_matrix_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    assert_close(gram_matrix(features), torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 2)


@few_examples
@given(shapes, st.integers(0, 99))
def test_gram_matrix_is_symmetric_and_positive(shape, seed):
    gram = gram_matrix(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    assert_close(gram, gram.mT)
    assert torch.linalg.eigvalsh(gram).min() > -1e-12


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_the_gram_matrix_is_the_numerical_one(memory_format):
    features = torch.randn(2, 3, 2, 4, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 3, 3, dtype=torch.float64)  # not symmetric: both places of a product count
    assert torch.autograd.gradcheck(lambda maps: gram_matrix(maps) * weights, features)


def test_gram_matrix_does_not_depend_on_the_size_of_a_repeated_texture():
    texture = torch.randn(1, 3, 4, 4)
    assert_close(gram_matrix(texture.repeat(1, 1, 3, 2)), gram_matrix(texture))


def test_gram_diagonal_is_squared_mean_plus_variance():
    features = torch.randn(2, 3, 8, 8)
    mean, std = mean_std(features, eps=0.0)
    assert_close(gram_matrix(features).diagonal(dim1=1, dim2=2), (mean**2 + std**2).view(2, 3))


def test_gram_matrices_of_half_precision_do_not_leave_its_range():
    features = torch.full((1, 2, 8, 8), 400.0, dtype=torch.float16, requires_grad=True)
    gram = gram_matrix(features)
    assert_close(gram, torch.full((1, 2, 2), 160_000.0))
    (gram.sum() * 1e-4).backward()
    assert_close(features.grad, torch.full_like(features, 1e-4 * 4 * 400 / 64), rtol=2e-3, atol=0)
