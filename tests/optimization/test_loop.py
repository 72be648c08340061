"""Optimization: the losses are the published formulas, they fall, and what the command promises of the loop holds."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from arbitrary_nst.image import resize
from arbitrary_nst.optimization.canvases import Painted, Pixels
from arbitrary_nst.optimization.loop import OptimizationDiverged, Targets, descend, optimize
from arbitrary_nst.optimization.presets import PRESETS, OptimizationConfig, equal
from arbitrary_nst.training.objectives import RelativeObjective


def test_the_relative_recipe_weighs_as_training_does():
    config, objective = PRESETS["relative"], RelativeObjective()
    for term in ("content", "moment", "gram", "total_variation"):
        assert getattr(config, f"{term}_weight") == getattr(objective, f"{term}_weight")
    assert list(config.content_layers) == [objective.content_layer]
    assert list(config.style_layers) == list(objective.style_layers)


SMALL = OptimizationConfig(
    content_layers={"relu2_1": 1.0},
    style_layers={"relu1_1": 0.5, "relu2_1": 0.5},
    gram_weight=10.0,
    steps=(8,),
    init="content",
    pixel_unit=1 / 255,
)


def smooth(height: int, width: int, seed: int) -> torch.Tensor:
    """A picture of soft blobs."""
    noise = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0.05, 0.95)


CONTENT, STYLE = smooth(24, 32, 1), smooth(20, 20, 2)


@pytest.fixture
def run(tiny):
    def last(content=CONTENT, styles=(STYLE,), config=SMALL, **options):
        iterates = list(optimize(content, list(styles), config, device="cpu", features=tiny, **options))
        return iterates[0], iterates[-1]

    return last


def total(iterate):
    return sum(iterate.losses.values())


@pytest.mark.parametrize("init", ["noise", "content"])
@pytest.mark.parametrize(("optimizer", "rate"), [("lbfgs", 1.0), ("adam", 4.0)])
def test_the_loss_falls(run, optimizer, rate, init):
    first, last = run(config=replace(SMALL, optimizer=optimizer, learning_rate=rate, init=init, noise=30.0))
    assert total(last) < 0.9 * total(first)
    assert last.image.shape == CONTENT.shape
    assert last.image.min() >= 0
    assert last.image.max() <= 1
    assert not last.image.requires_grad


def test_units_of_the_loss_do_not_matter(run):
    """torch's L-BFGS drops curvatures below 1e-10: a small loss would stand still without rescaling."""
    tiny_weights = replace(SMALL, content_weight=1e-9, gram_weight=1e-8)
    first, last = run(config=tiny_weights)
    _, usual = run()
    assert total(last) < 0.9 * total(first)
    assert total(last) == pytest.approx(1e-9 * total(usual), rel=0.02)


def test_the_same_seed_gives_the_same_picture(run):
    noise = replace(SMALL, init="noise", noise=20.0)
    pictures = [run(config=noise, seed=seed)[1].image for seed in (3, 3, 4)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_without_paintings_features_are_inverted_from_noise(run):
    config = replace(SMALL, steps=(40,), noise=20.0)
    first, last = run(styles=(), config=config)
    assert set(last.losses) == {"content"}
    assert last.losses["content"] < 0.2 * first.losses["content"]
    noise = run(styles=(), config=replace(config, steps=(1,)))[0].image
    assert (last.image - CONTENT).abs().mean() < 0.3 * (noise - CONTENT).abs().mean()


def test_without_a_photo_a_texture_of_any_size_is_made(run):
    first, last = run(content=None, size=(17, 40), config=replace(SMALL, noise=20.0))
    assert set(last.losses) == {"gram"}
    assert last.image.shape == (1, 3, 17, 40)
    assert total(last) < total(first)


def test_each_step_is_one_pass_and_targets_are_computed_once(tiny, monkeypatch):
    calls = []
    forward = tiny.forward
    monkeypatch.setattr(tiny, "forward", lambda image: calls.append(image.shape) or forward(image))
    list(optimize(CONTENT, [STYLE, STYLE], SMALL, device="cpu", features=tiny))
    assert len(calls) == 3 + SMALL.steps[0]


def test_several_paintings_pull_as_the_weighted_sum_of_each(tiny):
    image = CONTENT.clone().requires_grad_()
    styles, weights = [STYLE, smooth(22, 18, 5)], [0.3, 0.7]

    def gradient(styles, weights):
        loss = Targets(tiny, replace(SMALL, moment_weight=3.0), None, styles, weights)(image)
        return torch.autograd.grad(torch.stack(list(loss.values())).sum(), image)[0]

    separate = torch.stack([w * gradient([style], [1.0]) for style, w in zip(styles, weights, strict=True)]).sum(0)
    torch.testing.assert_close(gradient(styles, weights), separate, rtol=1e-4, atol=1e-4 * separate.abs().max().item())


def test_gatys_loss_is_the_published_one(tiny):
    """1000 / n^2 times the mean squared difference of F F^T / (h w), plus the mean squared difference of features."""
    config = replace(PRESETS["gatys2016"], content_layers={"relu2_1": 1.0}, style_layers={"relu1_1": 1 / 64**2})
    losses = Targets(tiny, config, CONTENT, [STYLE], [1.0])(smooth(24, 32, 9))
    ours, photo, painting = (tiny(image) for image in (smooth(24, 32, 9), CONTENT, STYLE))

    def gram(maps):
        flat = maps[0].flatten(1)
        return flat @ flat.T / flat.shape[1]

    difference = gram(ours["relu1_1"]) - gram(painting["relu1_1"])
    torch.testing.assert_close(losses["gram"], 1e3 / 64**2 * difference.square().mean())
    torch.testing.assert_close(losses["content"], (ours["relu2_1"] - photo["relu2_1"]).square().mean())
    assert PRESETS["gatys2016"].style_layers == {
        "relu1_1": 1 / 64**2,
        "relu2_1": 1 / 128**2,
        "relu3_1": 1 / 256**2,
        "relu4_1": 1 / 512**2,
        "relu5_1": 1 / 512**2,
    }


def test_d2l_loss_is_the_published_one(tiny):
    """1e3 times the mean squared difference of F F^T / (c h w); 10 times half the mean absolute differences of pixels,
    which are normalized there."""
    image = smooth(24, 32, 9)
    preset = PRESETS["d2l"]
    config = replace(preset, content_layers=equal("conv1_2"), style_layers={"relu2_1": preset.style_layers["conv2_1"]})
    losses = Targets(tiny, config, CONTENT, [STYLE], [1.0])(image)
    flat, flat_style = (tiny(picture)["relu2_1"][0].flatten(1) for picture in (image, STYLE))
    grams = [maps @ maps.T / maps.numel() for maps in (flat, flat_style)]
    torch.testing.assert_close(losses["gram"], 1e3 * (grams[0] - grams[1]).square().mean(), rtol=1e-4, atol=0)
    normalized = image / 0.226
    down = (normalized[:, :, 1:] - normalized[:, :, :-1]).abs().mean()
    across = (normalized[:, :, :, 1:] - normalized[:, :, :, :-1]).abs().mean()
    torch.testing.assert_close(losses["total_variation"], 10 * 0.5 * (down + across), rtol=1e-4, atol=0)


def test_scaled_features_weigh_by_their_squares(tiny):
    image = smooth(24, 32, 9)
    plain = Targets(tiny, SMALL, CONTENT, [STYLE], [1.0])(image)
    squared = Targets(tiny, replace(SMALL, squared_weights=True, content_weight=3.0), CONTENT, [STYLE], [1.0])(image)
    torch.testing.assert_close(squared["content"], 9 * plain["content"])
    torch.testing.assert_close(squared["gram"], 10 * 0.5 * plain["gram"])  # both layers: (10 / 2)^2 instead of 10 / 2


def test_relative_terms_do_not_depend_on_the_units_of_features(tiny):
    config = replace(SMALL, relative=True, moment_weight=1.0)
    image = smooth(24, 32, 9)

    bigger = deepcopy(tiny)
    bigger.unit_activation = True
    bigger.scale.fill_(7)
    ours, scaled = (Targets(network, config, CONTENT, [STYLE], [1.0])(image) for network in (tiny, bigger))
    for name in ("content", "gram", "moments"):
        torch.testing.assert_close(ours[name], scaled[name], rtol=1e-3, atol=1e-6)


def test_scales_begin_from_the_enlarged_result(run, tiny):
    config = replace(SMALL, scales=(0.75, 1.0), steps=(6, 1), learning_rate=1e-6)
    iterates = []
    for iterate in optimize(CONTENT, [STYLE], config, device="cpu", features=tiny):
        iterates.append((iterate.step, iterate.steps, iterate.image))
    assert [step for step, _, _ in iterates] == list(range(1, 8))
    assert {steps for _, steps, _ in iterates} == {7}
    small, big = iterates[5][2], iterates[6][2]
    assert small.shape[2:] == (18, 24)
    enlarged = F.interpolate(small, CONTENT.shape[2:], mode="bicubic").clamp(0, 1)
    assert (big - enlarged).abs().max() < 1e-3


def test_adam_goes_on_across_scales_and_the_rate_decays_through_them(tiny, monkeypatch):
    seen = []
    adam_step = torch.optim.Adam.step

    def step(self, closure=None):
        loss = adam_step(self, closure)
        state = self.state[self.param_groups[0]["params"][0]]
        seen.append((int(state["step"]), self.param_groups[0]["lr"], state["exp_avg_sq"].min().item()))
        return loss

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    config = replace(
        SMALL, optimizer="adam", scales=(0.75, 1.0), steps=(3,), learning_rate=8.0, decay=0.5, decay_every=2
    )
    list(optimize(CONTENT, [STYLE], config, device="cpu", features=tiny))
    assert [count for count, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [rate for _, rate, _ in seen] == [8, 8, 4, 4, 2, 2]
    assert min(least for _, _, least in seen) >= 0


def test_style_scale_and_init_image(tiny, run):
    small_strokes = run(style_scale=0.8)[1].image
    assert not torch.equal(small_strokes, run()[1].image)
    start = smooth(24, 32, 11)
    first, _ = run(init_image=start, config=replace(SMALL, learning_rate=1e-6, steps=(1,)))
    assert (first.image - start).abs().max() < 1e-3


def test_paintings_are_not_looked_at_smaller_than_the_network_can_bear(tiny, monkeypatch):
    shapes = []
    forward = tiny.forward
    monkeypatch.setattr(tiny, "forward", lambda image: shapes.append(tuple(image.shape[2:])) or forward(image))
    list(optimize(CONTENT, [STYLE], replace(SMALL, steps=(1,)), style_scale=0.1, device="cpu", features=tiny))
    assert (16, 16) in shapes


def test_luminance_keeps_the_chrominance_of_the_photo(run):
    image = run(preserve_color="luminance")[1].image
    free = ((image > 0) & (image < 1)).all(1)
    for one, other in ((0, 1), (1, 2)):
        difference = (image - CONTENT)[:, one] - (image - CONTENT)[:, other]
        assert difference[free].abs().max() < 1e-5


def test_covariance_recolours_the_painting_beforehand(run):
    plain, recoloured = run()[1].image, run(preserve_color="covariance")[1].image
    photo = CONTENT.mean((2, 3))
    assert (recoloured.mean((2, 3)) - photo).abs().sum() < (plain.mean((2, 3)) - photo).abs().sum()


def test_a_network_takes_the_place_of_pixels(run):
    content = smooth(21, 30, 3)
    config = replace(SMALL, canvas="hrnet", optimizer="adam", learning_rate=5e-3, steps=(12,))
    first, last = run(content=content, config=config)
    assert isinstance(last.canvas, Painted)
    assert last.image.shape == content.shape
    assert total(last) < total(first)
    same = run(content=content, config=config)[1].image
    assert torch.equal(last.image, same)


def test_divergence_is_told(tiny):
    config = replace(SMALL, optimizer="adam", learning_rate=1e30)
    with pytest.raises(OptimizationDiverged, match="--learning-rate"):
        list(optimize(CONTENT, [STYLE], config, device="cpu", features=tiny))


def test_bfloat16_descends_as_float32_does(run):
    ours = run(precision="bfloat16", config=replace(SMALL, steps=(15,)))[1]
    reference = run(config=replace(SMALL, steps=(15,)))[1]
    assert total(ours) == pytest.approx(total(reference), rel=0.1)


def test_nothing_to_change_stays_as_it_is(tiny):
    """The photo is its own painting: no gradient, no step, no NaN."""
    config = replace(SMALL, content_weight=1.0, gram_weight=0.0, moment_weight=0.0, total_variation_weight=0.0)
    features = deepcopy(tiny).to(memory_format=torch.channels_last)  # as in `optimize`: both pictures take one path
    canvas = Pixels(CONTENT, 1.0)
    targets = Targets(features, config, CONTENT, [], [])
    optimizer = torch.optim.Adam(canvas.parameters(), 0.1)
    list(descend(canvas, targets, optimizer, config, 0, 3, torch.autocast("cpu", enabled=False)))
    torch.testing.assert_close(canvas(), CONTENT, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"content": None, "styles": [], "size": (32, 32)}, "nothing to optimize"),
        ({"content": None, "styles": [STYLE]}, "size"),
        ({"content": CONTENT, "styles": [STYLE], "size": (8, 40)}, "at least 16"),
        ({"content": CONTENT, "styles": [STYLE], "style_weights": [1, 2]}, "1 styles need"),
        ({"content": CONTENT, "styles": [STYLE], "style_weights": [-1]}, "not negative"),
        ({"content": None, "styles": [STYLE], "size": (32, 32), "preserve_color": "luminance"}, "no photo"),
    ],
)
def test_what_cannot_be_is_refused(tiny, arguments, message):
    content, styles = arguments.pop("content"), arguments.pop("styles")
    with pytest.raises(ValueError, match=message):
        next(optimize(content, styles, SMALL, device="cpu", features=tiny, **arguments))


def test_a_network_needs_a_photo(tiny):
    with pytest.raises(ValueError, match="photo"):
        next(optimize(None, [STYLE], replace(SMALL, canvas="hrnet"), size=(32, 32), device="cpu", features=tiny))


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"steps": (0,)}, "--steps"),
        ({"steps": (5, 5)}, "--steps"),
        ({"scales": ()}, "--scales"),
        ({"scales": (0.0, 1.0)}, "--scales"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"gram_weight": -1.0}, "--gram-weight"),
        ({"gram_weight": float("nan")}, "--gram-weight"),
        ({"style_layers": {"relu1_1": -1.0}}, "--style-layers"),
    ],
)
def test_recipes_refuse_nonsense_by_the_option_name(options, flag):
    with pytest.raises(ValueError, match=flag):
        replace(SMALL, **options)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_run_with_random_features(name):
    """Every preset's layers exist in its network, and its loop turns."""
    from arbitrary_nst.optimization.loop import feature_network

    config = replace(PRESETS[name], steps=(1,))
    scales = tuple(min(1.0, 2 * scale) for scale in config.scales)
    content = resize(CONTENT, 32)
    features = feature_network(config, pretrained=False)
    (*_, last) = optimize(content, [STYLE], replace(config, scales=scales), device="cpu", features=features)
    assert last.image.isfinite().all()
    assert last.image.shape == content.shape
