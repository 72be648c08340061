import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from arbitrary_nst.nn.normalization import AdaptiveInstanceNorm2d, ConditionalInstanceNorm2d, adain
from arbitrary_nst.nn.statistics import mean_std


def test_adain_gives_the_content_the_statistics_of_the_style():
    content, style = torch.randn(2, 3, 16, 16), 4 + 2 * torch.randn(2, 3, 9, 11)
    mean, std = mean_std(style)
    ours_mean, ours_std = mean_std(adain(content, mean, std))
    assert_close(ours_mean, mean, atol=1e-4, rtol=1e-4)
    assert_close(ours_std, std, atol=1e-4, rtol=1e-4)


def test_adain_with_its_own_statistics_changes_nothing():
    content = torch.randn(2, 3, 5, 7)
    assert_close(adain(content, *mean_std(content)), content)


def test_adain_takes_one_style_for_the_whole_batch():
    content, style = torch.randn(3, 4, 5, 5), torch.randn(1, 4, 5, 5)
    mean, std = mean_std(style)
    assert_close(adain(content, mean, std), adain(content, mean.expand(3, -1, -1, -1), std.expand(3, -1, -1, -1)))


def test_adain_of_a_constant_is_the_style_mean():
    mean, std = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    assert_close(adain(torch.full((1, 2, 4, 4), 9.0), mean, std), mean.expand(1, 2, 4, 4))


def test_adain_gradient_is_the_numerical_one():
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 3, 3, 2), *[(2, 3, 1, 1)] * 2]
    ]
    assert torch.autograd.gradcheck(adain, inputs)


def test_gamma_one_and_beta_zero_is_instance_normalization():
    features = 5 + 3 * torch.randn(2, 4, 6, 6)
    ours = ConditionalInstanceNorm2d(4)(features, torch.ones(2, 4), torch.zeros(2, 4))
    assert_close(ours, F.instance_norm(features), atol=1e-5, rtol=1e-5)


def test_every_sample_has_its_own_gamma_and_beta():
    features, gamma, beta = torch.randn(2, 3, 8, 8), torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    mean, std = mean_std(ConditionalInstanceNorm2d(3)(features, gamma, beta))
    assert_close(mean.view(2, 3), beta, atol=1e-3, rtol=1e-3)
    assert_close(std.view(2, 3), gamma, atol=1e-3, rtol=1e-3)


def test_normalization_by_hand():
    features = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, deviation 1
    ours = ConditionalInstanceNorm2d(1, eps=0.0)(features, torch.tensor([[10.0]]), torch.tensor([[7.0]]))
    assert_close(ours, torch.tensor([[[[-3.0, 17.0]]]]))


@pytest.mark.parametrize("batch", [1, 3])
def test_one_style_for_the_batch_equals_the_style_repeated(batch):
    features, gamma, beta = torch.randn(batch, 4, 5, 5), torch.randn(1, 4), torch.randn(1, 4)
    norm = ConditionalInstanceNorm2d(4)
    repeated = norm(features, gamma.repeat(batch, 1), beta.repeat(batch, 1))
    assert_close(norm(features, gamma, beta), repeated)


@pytest.mark.parametrize("styles", [1, 2])
def test_conditional_norm_gradient_is_the_numerical_one(styles):
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 3, 3, 2), *[(styles, 3)] * 2]
    ]
    assert torch.autograd.gradcheck(ConditionalInstanceNorm2d(3), inputs)


@pytest.mark.parametrize("styles", [1, 2])
def test_features_keep_their_precision_and_memory_layout(styles):
    features = torch.randn(2, 4, 5, 5).bfloat16().to(memory_format=torch.channels_last)
    output = ConditionalInstanceNorm2d(4)(features, torch.ones(styles, 4), torch.zeros(styles, 4))
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_it_owns_no_parameters():
    assert not ConditionalInstanceNorm2d(4).state_dict()


def test_a_part_is_normalized_as_in_the_whole_by_the_wholes_statistics():
    features, gamma, beta = 2 + 3 * torch.randn(1, 4, 8, 8), torch.randn(1, 4), torch.randn(1, 4)
    statistics = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)
    for norm, shape in ((ConditionalInstanceNorm2d(4), (1, 4)), (AdaptiveInstanceNorm2d(), (1, 4, 1, 1))):
        affine = gamma.view(shape), beta.view(shape)
        whole = norm(features, *affine)
        norm.statistics = statistics
        assert_close(norm(features, *affine), whole, atol=1e-5, rtol=1e-5)
        assert_close(norm(features[..., :3], *affine), whole[..., :3], atol=1e-5, rtol=1e-5)


def test_given_statistics_keep_precision_and_memory_layout():
    features = torch.randn(1, 4, 5, 5).bfloat16().to(memory_format=torch.channels_last)
    norm = ConditionalInstanceNorm2d(4)
    norm.statistics = torch.zeros(4), torch.ones(4)
    output = norm(features, torch.ones(1, 4), torch.zeros(1, 4))
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)
