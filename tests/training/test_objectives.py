from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from arbitrary_nst.models import AdaIN
from arbitrary_nst.models.adain import ENCODER
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import autocorrelation_loss, checkerboard_loss, total_variation
from arbitrary_nst.nn.octaves import NOISE
from arbitrary_nst.training.objectives import (
    OBJECTIVES,
    LocalObjective,
    OctavesObjective,
    hypercolumns,
    loss_network,
    random_corner,
)

NAMES = {
    "relative": ["content", "gram", "moments", "total_variation", "lattice", "repetition"],
    "local": ["content", "style", "neighbors", "moments", "color", "lattice"],
    "octaves": ["content", "style", "neighbors", "moments", "color", "lattice", "consistency"],
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

    def forward(self, content, code, guide=None, first=True):
        return content * self.gain.view(3, 1, 1) + code[:, :, None, None]


class Mirror(AdaIN):
    """AdaIN with a decoder that undoes the encoder of the one content it is given."""

    content: Tensor

    def decode(self, features):
        return self.content


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return VGGFeatures(["relu4_1"], ENCODER, pretrained=False)


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


def seeded(objective, *arguments):
    """The losses at the positions and crops that seed 0 draws."""
    torch.manual_seed(0)
    return objective(*arguments)


def test_every_objective_is_tested():
    assert NAMES.keys() == OBJECTIVES.keys()


def test_losses_are_named_finite_and_positive(case):
    name, objective, *arguments = case
    losses = objective(*arguments)
    assert list(losses) == NAMES[name]
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())


def test_each_weight_scales_one_term_and_no_other(case):
    name, objective, *arguments = case
    before = seeded(objective, *arguments)
    changed = []
    weights = [(key, value) for key, value in asdict(objective).items() if key.endswith("_weight")]
    for key, value in weights:
        after = seeded(replace(objective, **{key: 2 * value}), *arguments)
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
    one = seeded(objective, model, features, content, style[:1], code[:1])
    two = seeded(objective, model, features, content, style[:1].expand(2, -1, -1, -1), code[:1].expand(2, -1))
    assert_close(one, two)


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
        own["lattice"] = objective.lattice_weight * checkerboard_loss(photo)
        own["repetition"] = objective.repetition_weight * autocorrelation_loss(photo)
    assert_close({name: losses[name] for name in own}, own)
    assert all(value.item() == 0 for name, value in losses.items() if name not in own)


def test_adain_that_paints_exactly_what_it_was_asked_to_costs_nothing(encoder, networks):
    model = Mirror(encoder)
    model.content = torch.rand(1, 3, 32, 32)
    code = model.encode_style(model.content)
    losses = OBJECTIVES["adain"]()(model, networks["adain"], model.content, model.content, code)
    assert_close(torch.stack(list(losses.values())), torch.zeros(2), atol=1e-7, rtol=0)


def other_layers(objective):
    """Those that it looks at besides the layers of style."""
    if isinstance(objective, LocalObjective):
        return [*objective.neighbor_layers, *(name for name, _ in objective.content_layers)]
    return [objective.content_layer]


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_loss_network_sees_what_the_objective_names(name, networks):
    objective, features = OBJECTIVES[name](), networks[name]
    assert set(features.layers) == {*objective.style_layers, *other_layers(objective)}
    assert features.config == objective.vgg


@pytest.mark.parametrize("name", ["local", "octaves"])
def test_photo_given_back_in_its_own_style_has_lost_nothing(name, networks):
    objective, photo = OBJECTIVES[name](), torch.rand(1, 3, 64, 64)
    losses = objective(Tint(), networks[name], photo, photo, torch.zeros(1, 3))
    assert losses["content"].item() == pytest.approx(0, abs=1e-5)
    if name == "local":  # the octaves see crops of their own of the painting
        assert losses["moments"].item() == 0


def test_neighbors_are_found_wherever_they_are(networks):
    painting = torch.rand(1, 3, 64, 64)
    objective, features = LocalObjective(neighbor_layers=("relu1_1", "relu3_1")), networks["local"]

    def distance(photo, gain=1.0):
        model = Tint()
        model.gain.data.fill_(gain)
        return objective(model, features, photo, painting, torch.zeros(1, 3))["neighbors"].item()

    assert distance(painting) == pytest.approx(0, abs=1e-4)
    assert distance(painting.roll((8, 8), (2, 3))) < 0.3 * distance(torch.rand(1, 3, 64, 64))
    assert distance(painting, 0.5) > 1e-3  # the nearest is looked for with the photo, not with the output


def test_hypercolumns_lie_in_the_middle_of_cells_of_four_pixels():
    def ramp(scale):
        """Maps whose values are the places of their middles, in pixels."""
        places = (torch.arange(64 // scale) + 0.5) * scale
        return torch.stack([places[:, None].expand(-1, len(places)), places.expand(len(places), -1)])[None]

    names = ("relu1_2", "relu2_1", "relu3_3", "relu4_1")
    columns = hypercolumns({name: 2 * ramp(scale) for name, scale in zip(names, (1, 2, 4, 8), strict=True)}, names)
    middles = torch.arange(16) * 4 + 2.0
    for down, across in columns.unflatten(1, (4, 2))[0, :, :, 1:-1, 1:-1]:
        assert_close(down[:, 0], middles[1:-1])
        assert_close(across[0], middles[1:-1])


def test_half_a_crop_need_not_be_a_multiple_of_eight(networks):
    pictures = torch.rand(2, 3, 72, 72)  # as --crop-size 72: octaves see 36
    losses = OctavesObjective()(Octaves(0.5), networks["octaves"], pictures, pictures)
    assert torch.isfinite(losses["neighbors"])


class Octaves(nn.Module):
    """Paints every octave as `Tint` does, and remembers what it was given."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.given = gain, []

    def encode_style(self, style):
        return style.mean((2, 3))

    def forward(self, content, code, guide=None, first=True):
        self.given.append((content, guide, first))
        return self.gain * content


def test_the_second_octave_is_painted_from_the_first(networks):
    model, photo = Octaves(0.5), torch.rand(1, 3, 64, 64)
    OctavesObjective()(model, networks["octaves"], photo, photo)
    (coarse, coarse_guide, first), (fine, guide, second) = model.given
    assert first
    assert not second
    assert_close(coarse, F.avg_pool2d(photo, 2))
    grain = coarse_guide - coarse
    assert_close(grain, grain[:, :1].expand(-1, 3, -1, -1))
    assert grain.std().item() == pytest.approx(NOISE, rel=0.2)
    assert fine.shape == guide.shape == (1, 3, 32, 32)
    change = F.interpolate(coarse * (0.5 - 1), scale_factor=2.0, mode="bilinear")
    whole = photo + change
    places = [(top, left) for top in range(0, 33, 4) for left in range(0, 33, 4)]
    (top, left) = next(at for at in places if torch.equal(fine, photo[:, :, at[0] : at[0] + 32, at[1] : at[1] + 32]))
    grain = guide - whole[:, :, top : top + 32, left : left + 32]
    assert_close(grain, grain[:, :1].expand(-1, 3, -1, -1))
    assert grain.std().item() == pytest.approx(NOISE, rel=0.2)


def test_octaves_keep_their_colours(networks):
    flat = torch.full((1, 3, 64, 64), 0.5)
    losses = OctavesObjective()(Octaves(0.5), networks["octaves"], flat, torch.rand(1, 3, 64, 64))
    assert losses["consistency"].item() == pytest.approx(0, abs=1e-5)  # anchored, whatever the second octave's gray


def test_corners_lie_anywhere_within():
    corners = {random_corner(torch.zeros(1, 3, 20, 20), 8, multiple=4) for _ in range(200)}
    assert corners == {(top, left) for top in (0, 4, 8, 12) for left in (0, 4, 8, 12)}
