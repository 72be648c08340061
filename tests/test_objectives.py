from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.losses import lattice, repetition, total_variation
from arbitrary_nst.models import AdaIN
from arbitrary_nst.objectives import OBJECTIVES, loss_network

NAMES = {
    "relative": ["content", "moments", "gram", "total_variation", "lattice", "repetition"],
    "prediction": ["content", "gram", "total_variation"],
    "johnson": ["content", "gram", "total_variation"],
    "adain": ["content", "moments"],
}


class Tint(nn.Module):
    """A style model of one layer, which begins as the identity."""

    code_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def encode_style(self, style):
        return style.mean((2, 3)) * 0

    def forward(self, content, code):
        return content * self.gain.view(3, 1, 1) + code[:, :, None, None]


class Mirror(AdaIN):
    """AdaIN with a decoder that undoes the encoder of the one content it is given."""

    content: Tensor

    def decode(self, features):
        return self.content


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return VGGFeatures(["relu4_1"], pretrained=False, unit_activation=True, padding="reflect")


@pytest.fixture(scope="module")
def networks():
    """The features of each objective, with random weights: those of `encoder` where it is AdaIN's."""
    features = {}
    for name, build in OBJECTIVES.items():
        torch.manual_seed(0)
        features[name] = loss_network(build(), pretrained=False)
    return features


@pytest.fixture(params=list(OBJECTIVES))
def case(request, encoder, networks):
    """Objective, model and features that belong together, and a batch."""
    name = request.param
    model = AdaIN(encoder) if name == "adain" else Tint()
    with torch.no_grad():
        if isinstance(model, Tint):
            model.gain.mul_(0.8)
    content, style = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64) ** 2
    return name, OBJECTIVES[name](), model, networks[name], content, style, model.encode_style(style)


def test_every_objective_is_tested():
    assert NAMES.keys() == OBJECTIVES.keys()


def test_losses_are_named_finite_and_positive(case):
    name, objective, *arguments = case
    losses = objective(*arguments)
    assert list(losses) == NAMES[name]
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())


def test_each_weight_scales_one_term_and_no_other(case):
    name, objective, *arguments = case
    before = objective(*arguments)
    changed = []
    weights = [(key, value) for key, value in asdict(objective).items() if key.endswith("_weight")]
    for key, value in weights:
        after = replace(objective, **{key: 2 * value})(*arguments)
        (term,) = [loss for loss in before if not torch.allclose(after[loss], before[loss], rtol=1e-3, atol=0)]
        assert_close(after[term], 2 * before[term], rtol=1e-4, atol=0)
        changed.append(term)
    assert sorted(changed) == sorted(NAMES[name])


def test_gradient_reaches_the_model_and_not_the_frozen_features(case):
    _, objective, model, features, *batch = case
    torch.stack(list(objective(model, features, *batch).values())).sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained)
    assert all(parameter.grad is None for parameter in features.parameters())


def test_one_painting_serves_the_whole_batch(case):
    _, objective, model, features, content, style, code = case
    one = objective(model, features, content, style[:1], code[:1])
    assert_close(one, objective(model, features, content, style[:1].expand(2, -1, -1, -1), code[:1].expand(2, -1)))


def test_johnsons_gram_matrices_are_divided_by_their_channels(networks):
    objective, photo, style = OBJECTIVES["johnson"](), torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    features = networks["johnson"]
    losses = objective(Tint(), features, photo, style, torch.zeros(1, 3))
    terms = []
    for layer in objective.style_layers:
        ours, theirs = (features(image)[layer].flatten(2)[0] for image in (photo, style))
        channels, positions = ours.shape
        terms.append(((ours @ ours.T - theirs @ theirs.T) / (channels * positions)).square().mean())
    assert_close(losses["gram"], 5 * torch.stack(terms).sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["relative", "prediction", "johnson"])
def test_photo_given_back_in_its_own_style_costs_its_own_variation_only(name, networks):
    objective, photo = OBJECTIVES[name](), torch.rand(2, 3, 32, 32)
    losses = objective(Tint(), networks[name], photo, photo, torch.zeros(1, 3))
    own = {"total_variation": objective.total_variation_weight * total_variation(photo)}
    if name == "relative":
        own["lattice"] = objective.lattice_weight * lattice(photo)
        own["repetition"] = objective.repetition_weight * repetition(photo)
    assert_close({name: losses[name] for name in own}, own)
    assert all(value.item() == 0 for name, value in losses.items() if name not in own)


def test_adain_that_paints_exactly_what_it_was_asked_to_costs_nothing(encoder, networks):
    model = Mirror(encoder)
    model.content = torch.rand(1, 3, 32, 32)
    code = model.encode_style(model.content)
    losses = OBJECTIVES["adain"]()(model, networks["adain"], model.content, model.content, code)
    assert_close(torch.stack(list(losses.values())), torch.zeros(2), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_loss_network_sees_what_the_objective_names(name, networks):
    objective, features = OBJECTIVES[name](), networks[name]
    assert set(features.layers) == {*objective.style_layers, objective.content_layer}
    assert (features.pooling, features.unit_activation) == (objective.pooling, objective.unit_activation)
