"""Losses of sets of feature vectors: the published formulas by hand, and what they do not depend on."""

import pytest
import torch
from torch.testing import assert_close

from arbitrary_nst.nn.losses import (
    cosine_distance,
    covariance_loss,
    euclidean_distance,
    nearest_neighbor_loss,
    paired_cosine_distance,
    paired_euclidean_distance,
    relaxed_emd_loss,
    sample_positions,
    sample_structure,
    self_similarity_loss,
    take_vectors,
    vectors_at,
)


def euclidean_emd_loss(output, style):
    return relaxed_emd_loss(output, style, "euclidean")


COSINE = [relaxed_emd_loss, nearest_neighbor_loss, self_similarity_loss]
STYLE = [relaxed_emd_loss, euclidean_emd_loss, nearest_neighbor_loss, covariance_loss]
LOSSES = [*STYLE, self_similarity_loss]

SQRT_HALF = 0.5**0.5
THREE = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [3.0, 3.0]]])
"""Three vectors: along the first axis, along the second, and between them."""
TWO = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
"""The first axis, and the opposite of the second."""


def vectors(seed: int, count: int = 7, batch: int = 2, **options) -> torch.Tensor:
    return torch.randn(batch, count, 5, generator=torch.Generator().manual_seed(seed), **options)


def test_distances_by_hand():
    assert_close(cosine_distance(THREE, TWO), torch.tensor([[[0, 1], [1, 2], [1 - SQRT_HALF, 1 + SQRT_HALF]]]))
    expected = torch.tensor([[1.0, 5.0], [2.0, 4.0], [13.0, 25.0]]).sqrt()[None]
    assert_close(euclidean_distance(THREE, TWO), expected)
    assert_close(paired_cosine_distance(THREE[:, :2], TWO), torch.tensor([[0.0, 2.0]]))
    assert_close(paired_euclidean_distance(THREE[:, :2], TWO), torch.tensor([[1.0, 2.0]]))


def test_relaxed_emd_by_hand():
    """To the nearest of the two: 0, 1 and 1 - sqrt(1/2); from the two to the nearest of three: 0 and 1."""
    assert_close(relaxed_emd_loss(THREE, TWO), torch.tensor(max((0 + 1 + 1 - SQRT_HALF) / 3, (0 + 1) / 2)))
    assert_close(relaxed_emd_loss(TWO, THREE), relaxed_emd_loss(THREE, TWO))
    there, back = (1 + 2**0.5 + 13**0.5) / 3, (1 + 2) / 2
    assert_close(euclidean_emd_loss(THREE, TWO), torch.tensor(max(there, back)), rtol=1e-4, atol=0)


def test_nearest_neighbors_by_hand():
    assert_close(nearest_neighbor_loss(THREE, TWO), torch.tensor((0 + 1 + 1 - SQRT_HALF) / 3))
    assert_close(nearest_neighbor_loss(TWO, THREE), torch.tensor((0 + 1) / 2))


def test_self_similarity_by_hand():
    """Distances of the three: 1, h and h with h = 1 - sqrt(1/2); of the other three: 0, 1 and 1."""
    h = 1 - SQRT_HALF
    other = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])
    ours = torch.tensor([[0, 1 / (1 + h), 0.5], [1 / (1 + h), 0, 0.5], [h / (1 + h), h / (1 + h), 0]])
    theirs = torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [1.0, 1.0, 0]])
    expected = (ours - theirs).abs().sum(0).mean()
    assert_close(self_similarity_loss(THREE, other), expected, rtol=1e-4, atol=0)


def test_covariance_by_hand():
    """Means (5, 4) / 3 and (1, -1) / 2; covariances ((14, 7), (7, 14)) / 9 and ((1, 1), (1, 1)) / 4."""
    means = (abs(5 / 3 - 1 / 2) + abs(4 / 3 + 1 / 2)) / 2
    covariances = (2 * abs(14 / 9 - 1 / 4) + 2 * abs(7 / 9 - 1 / 4)) / 4
    assert_close(covariance_loss(THREE, TWO), torch.tensor(means + covariances))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_sets_cost_nothing(loss):
    assert loss(vectors(1), vectors(1)).item() == pytest.approx(0, abs=2e-4)  # a root's gradient is kept finite


@pytest.mark.parametrize("loss", STYLE)
def test_the_order_of_a_set_does_not_matter(loss):
    output, style = vectors(1), vectors(2, 9)
    assert_close(loss(output[:, torch.randperm(7)], style[:, torch.randperm(9)]), loss(output, style))


def test_self_similarity_knows_places_by_their_order_only_in_common():
    output, content, order = vectors(1), vectors(2), torch.randperm(7)
    assert_close(self_similarity_loss(output[:, order], content[:, order]), self_similarity_loss(output, content))
    assert self_similarity_loss(output[:, torch.arange(7).roll(1)], output) > 0.1


@pytest.mark.parametrize("loss", COSINE)
def test_the_length_of_a_vector_does_not_matter_where_angles_count(loss):
    output, other, lengths = vectors(1), vectors(2), torch.rand(2, 7, 1) + 0.5
    assert_close(loss(output * lengths, other / lengths), loss(output, other))


@pytest.mark.parametrize("loss", STYLE)
def test_every_vector_twice_is_the_same_set(loss):
    output, style = vectors(1), vectors(2, 9)
    expected = loss(output, style)
    assert_close(loss(output.repeat(1, 2, 1), style.repeat_interleave(2, 1)), expected)
    assert_close(loss(output, style.repeat(1, 2, 1)), expected)


def test_self_similarity_of_every_place_twice_is_the_same():
    output, content = vectors(1).repeat(1, 2, 1), vectors(2).repeat(1, 2, 1)
    assert_close(self_similarity_loss(output, content), self_similarity_loss(vectors(1), vectors(2)))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_numerical_one(loss, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # float64 all the way
    output, other = vectors(1, 4, dtype=torch.float64).requires_grad_(), vectors(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda found: loss(found, other), output)


@pytest.mark.parametrize("loss", LOSSES)
def test_batch_costs_the_mean_of_its_samples(loss):
    output, other = vectors(1, batch=3), vectors(2, batch=3)
    singles = [loss(a[None], b[None]) for a, b in zip(output, other, strict=True)]
    assert_close(loss(output, other), torch.stack(singles).mean())


@pytest.mark.parametrize("loss", STYLE)
def test_one_set_serves_a_whole_batch(loss):
    output, style = vectors(1, batch=3), vectors(2, 9, batch=1)
    assert_close(loss(output, style), loss(output, style.expand(3, -1, -1)))


def test_positions_are_drawn_once_each_and_by_the_seed():
    features = torch.zeros(1, 2, 6, 5)
    draws = [sample_positions(features, 8, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 8
    assert sorted(sample_positions(features, 99).tolist()) == list(range(30))


def test_structure_is_drawn_where_the_content_image_has_it():
    """Even on the left; stripes of a standard deviation of 0.5, whose chance is 0.501 / 0.52, on the right."""
    content = torch.zeros(2, 3, 64, 64)
    content[:, :, :, 32::2] = 1
    draws = [
        sample_structure(content, (16, 16), 64, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][1]
    for sample in draws[0]:
        assert len(set(sample)) == 64
        assert sum(index % 16 < 7 for index in sample) < 10
    for value in (0.5, float("nan")):  # broken pictures are found by their losses
        assert sorted(sample_structure(torch.full((1, 3, 64, 64), value), (6, 5), 99)[0].tolist()) == list(range(30))


def test_vectors_at_positions_of_every_sample():
    features = torch.rand(2, 3, 4, 5)
    found = vectors_at(features, torch.tensor([[7, 0], [1, 19]]))
    assert_close(found[1], features[1, :, [0, 3], [1, 4]].T)
    assert_close(found[0], vectors_at(features, torch.tensor([7, 0]))[0])


def test_vectors_are_taken_from_each_sample_by_its_own_indices():
    vectors = torch.arange(12.0).view(2, 3, 2)
    taken = take_vectors(vectors, torch.tensor([[2, 2], [0, 1]]))
    assert taken.tolist() == [[[4, 5], [4, 5]], [[6, 7], [8, 9]]]


def test_vectors_at_positions():
    features = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    found = vectors_at(features.bfloat16(), torch.tensor([7, 0]))
    assert found.dtype == torch.float32
    assert_close(found, features.bfloat16().float()[:, :, [1, 0], [2, 0]].mT)
