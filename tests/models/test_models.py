import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from arbitrary_nst.models import FIXED_STYLES, MODELS, AdaIN, FixedStyles, normalization_network
from arbitrary_nst.models.blocks import binomial_filter, conditioned, pad_by_reflection, pad_to_multiple
from arbitrary_nst.models.light import TOKENS, VIEW_SIZE, CoarseToFine, EvenUnfolding, LocalAffine, combine_views
from arbitrary_nst.models.serialization import ModelFileError, load_model, model_card, save_model
from arbitrary_nst.models.style_prediction import (
    EMBEDDING_SIZE,
    LARGEST_CORRELATED,
    GhiasiTransformer,
    StyleTokens,
    statistics,
)
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d

OPTIONS = {"single-style": {"styles": ["wave"]}, "multi-style": {"styles": ["wave", "dots", "ink"]}}


@pytest.fixture(scope="module")
def built(light_model):
    """Each model once, when it is first asked for."""
    models = {"light": light_model}

    def get(name):
        if name not in models:
            models[name] = MODELS[name](pretrained=False, **OPTIONS.get(name, {})).eval()
            if isinstance(models[name], AdaIN):
                brighten(models[name])
        return models[name]

    return get


def brighten(model: AdaIN) -> None:
    """An untrained decoder paints nearly the same for all inputs: let them through, and spread them over [0, 1]."""
    with torch.no_grad():
        convolutions = [module for module in model.decoder if isinstance(module, nn.Conv2d)]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        painted = model.decode(model.transfer(torch.rand(1, 3, 64, 64), torch.rand(1, model.code_size)))
        convolutions[-1].weight.mul_(0.2 / painted.std())
        nn.init.constant_(convolutions[-1].bias, 0.5)  # type: ignore[arg-type]


def any_code(model, styles):
    """The code of paintings, or of mixtures of the styles that a model knows."""
    return torch.rand(len(styles), model.code_size) if isinstance(model, FixedStyles) else model.encode_style(styles)


@pytest.fixture(params=list(MODELS))
def model(request, built):
    with torch.inference_mode():
        yield built(request.param)


# Pictures and codes


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 53), (64, 64)])
def test_output_is_exactly_as_large_as_the_content(model, size):
    output = model(torch.rand(1, 3, *size), torch.rand(1, model.code_size))
    assert output.shape == (1, 3, *size)
    beyond = 0.09 if isinstance(model, FixedStyles) and model.transformer.single else 0.0
    assert -beyond <= output.min() <= output.max() <= 1 + beyond


def test_batch_equals_the_stack_of_its_images(model):
    contents, styles = torch.rand(2, 3, 40, 24), torch.rand(2, 3, 96, 96)
    codes = any_code(model, styles)
    assert codes.shape == (2, model.code_size)
    if not isinstance(model, FixedStyles):
        alone = torch.cat([model.encode_style(style[None]) for style in styles])
        assert_close(codes, alone, atol=1e-4 * float(codes.abs().max()), rtol=0)  # a random network's codes are large
    alone = [model(content[None], code[None]) for content, code in zip(contents, codes, strict=True)]
    assert_close(model(contents, codes), torch.cat(alone), atol=2e-3, rtol=0)


def test_one_code_for_the_whole_batch_equals_the_code_repeated(model):
    contents, code = torch.rand(3, 3, 24, 24), torch.rand(1, model.code_size)
    assert_close(model(contents, code), model(contents, code.expand(3, -1)), atol=2e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_paintings_have_finite_codes_and_give_finite_pictures(model, value):
    code = any_code(model, torch.full((1, 3, 96, 96), value))
    assert torch.isfinite(code).all()
    assert torch.isfinite(model(torch.full((1, 3, 16, 16), value), code)).all()


def test_picture_depends_on_the_code(model):
    pictures = model(torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1), torch.rand(2, model.code_size))
    assert (pictures[0] - pictures[1]).abs().mean() > 5e-3


def test_padding_continues_the_border_to_the_right_and_below():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(image, 4, 4)
    assert torch.equal(padded[0, 0], torch.tensor([[0.0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]))
    assert pad_to_multiple(padded, 4, 4) is padded
    assert pad_to_multiple(padded, 4, 16).shape == (1, 1, 16, 16)


# Sizes


def multiply_adds_per_pixel(model: nn.Module, side: int = 256) -> float:
    content, code = torch.rand(1, 3, side, side), torch.rand(1, model.code_size)  # pyright: ignore[reportArgumentType]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(content, code)
    return counter.get_total_flops() / 2 / side**2


def test_paper_network_has_the_numbers_of_the_paper(built):
    norms = [module for module in built("paper").modules() if isinstance(module, ConditionalInstanceNorm2d)]
    assert len(norms) == 13
    assert built("paper").affine.out_features == 2 * sum(norm.channels for norm in norms) == 2758
    convolutions = [module for module in GhiasiTransformer().modules() if isinstance(module, nn.Conv2d)]
    assert sum(convolution.weight.numel() for convolution in convolutions) == 1_674_432


def test_paper_network_costs_about_150_thousand_multiply_adds_a_pixel(built):
    assert 140_000 < multiply_adds_per_pixel(built("paper"), side=64) < 160_000


def test_light_network_costs_about_60_thousand_multiply_adds_a_pixel(light_model):
    assert 59_500 < multiply_adds_per_pixel(light_model) < 60_500


def test_light_model_in_half_precision_is_a_file_of_at_most_eleven_megabytes(light_model, tmp_path):
    save_model(light_model, "light", tmp_path / "light.safetensors", half=True)
    assert (tmp_path / "light.safetensors").stat().st_size <= 11_000_000


def test_every_affine_is_used_once_and_fits_its_norm(light_model):
    norms = conditioned(light_model)
    seen = []
    hooks = [norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1:])) for norm in norms]
    affines = light_model.affines(torch.rand(1, 1 + EMBEDDING_SIZE))
    light_model.transformer(*torch.rand(2, 1, 3, 16, 16), affines, torch.rand(1, *TOKENS))
    for hook in hooks:
        hook.remove()
    assert [norm.channels for norm in norms] == [gamma.shape[1] for gamma, _ in affines]
    assert all(a is b for used, given in zip(seen, affines, strict=True) for a, b in zip(used, given, strict=True))


@pytest.mark.parametrize(("name", "count"), [("adain", 8), ("adain-vgg19", 9)])
def test_decoder_mirrors_the_encoder(built, name, count):
    decoder = built(name).decoder
    convolutions = [module for module in decoder if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == count
    assert (convolutions[0].in_channels, convolutions[-1].out_channels) == (512, 3)
    assert sum(isinstance(module, nn.Upsample) for module in decoder) == 3
    assert decoder[-1] is convolutions[-1]


# Methods


def test_blending_codes_is_adains_blending_of_features(built):
    model, content = built("adain"), torch.rand(1, 3, 32, 32)
    style, alpha = model.encode_style(torch.rand(1, 3, 32, 32) ** 2), 0.3
    own = model.encode_style(content)
    features, target = model.encoder(content)["relu4_1"], model.transfer(content, style)
    blended = model.transfer(content, (1 - alpha) * own + alpha * style)
    assert_close(blended, (1 - alpha) * features + alpha * target, atol=1e-4, rtol=1e-4)


def test_fixed_styles_are_those_whose_builders_take_names(built):
    assert {name for name in MODELS if isinstance(built(name), FixedStyles)} == set(FIXED_STYLES) == set(OPTIONS)


def awake(model):
    """The model with local affines that begin as some change; as built they begin as none, and hide the tokens."""
    for module in model.modules():
        if isinstance(module, LocalAffine):
            nn.init.normal_(module.out.weight, std=0.1)
    return model


def test_gradient_reaches_every_parameter_of_the_normalization_network():
    model = awake(normalization_network()).train()
    model(torch.rand(2, 3, 32, 32), model.encode_style(torch.rand(2, 3, 32, 32))).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (81, 83)])
@torch.inference_mode()
def test_normalization_network_looks_at_paintings_of_any_size(built, size):
    assert built("normalization-network").encode_style(torch.rand(2, 3, *size)).shape == (2, CoarseToFine.code_size)


def test_style_starts_as_plain_instance_normalization(light_model):
    gammas, betas = zip(*light_model.affines(torch.zeros(1, 1 + EMBEDDING_SIZE)), strict=True)
    assert all(torch.equal(gamma, torch.ones_like(gamma)) for gamma in gammas)
    assert all(torch.equal(beta, torch.zeros_like(beta)) for beta in betas)


def test_tokens_begin_as_no_change_and_then_differ_from_place_to_place(light_model):
    content, code = torch.rand(1, 3, 32, 32), torch.rand(1, CoarseToFine.code_size)
    other = code.clone()
    other[:, 1 + EMBEDDING_SIZE : VIEW_SIZE] += torch.rand(VIEW_SIZE - 1 - EMBEDDING_SIZE)
    with torch.no_grad():
        assert torch.equal(light_model(content, code), light_model(content, other))
        model = awake(copy.deepcopy(light_model))
        assert (model(content, code) - model(content, other)).abs().mean() > 1e-3


def test_octaves_have_a_view_of_their_own(light_model):
    content, guide, code = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(1, CoarseToFine.code_size)
    other = code.clone()
    other[:, VIEW_SIZE:] += torch.rand(VIEW_SIZE)
    with torch.no_grad():
        assert torch.equal(light_model(content, code), light_model(content, other))
        assert not torch.allclose(light_model(content, code, guide, False), light_model(content, other, guide, False))
    assert torch.equal(combine_views(code, other), other)
    assert torch.equal(combine_views(other, code), code)


@torch.no_grad()
def test_tokens_are_weighted_means_of_places():
    tokens = StyleTokens([4], count=5, width=6)
    style, maps = torch.rand(2, 3, 32, 32), [torch.randn(2, 4, 8, 8)]
    found = tokens(style, maps)
    assert found.shape == (2, 5, 6)
    nn.init.zeros_(tokens.query.weight)  # every place weighs the same then
    means = tokens(style, maps)
    assert_close(means, means[:, :1].expand(-1, 5, -1))
    assert (found - means).abs().max() > 1e-3


def test_gradient_reaches_every_parameter_of_light(light_model):
    model = awake(copy.deepcopy(light_model)).train().requires_grad_()  # other tests may have frozen it
    model(torch.rand(2, 3, 64, 64), model.encode_style(torch.rand(2, 3, 64, 64))).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_training_leaves_the_backbones_batch_statistics_alone(light_model):
    model = copy.deepcopy(light_model).train()
    before = {name: value.clone() for name, value in model.predictor.named_buffers()}
    model.encode_style(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.predictor.named_buffers())


def test_statistics_are_means_deviations_and_the_correlation_of_every_two_channels():
    features = torch.randn(2, 3, 9, 7) @ torch.randn(7, 7) + 5
    found = statistics(features)
    assert found.shape == (2, 9)
    for sample, numbers in zip(features.flatten(2), found, strict=True):
        assert_close(numbers[:3], sample.mean(1))
        assert_close(numbers[3:6], sample.std(1, correction=0), atol=1e-3, rtol=0)
        assert_close(numbers[6:], torch.corrcoef(sample)[[0, 0, 1], [1, 2, 2]], atol=1e-3, rtol=0)
    assert statistics(torch.rand(1, LARGEST_CORRELATED + 1, 4, 4)).shape == (1, 2 * LARGEST_CORRELATED + 2)
    assert torch.isfinite(statistics(torch.ones(1, 3, 8, 8))).all()


def test_predictor_learns_what_is_usual_and_sees_how_far_a_painting_is_from_it(light_model):
    predictor = copy.deepcopy(light_model.predictor)
    paintings = torch.rand(12, 3, 80, 80) ** torch.linspace(0.3, 3, 12)[:, None, None, None]
    predictor.measure(paintings)
    with torch.no_grad():
        seen = predictor.embed[0](predictor.summarize(paintings, predictor.maps(paintings)))
    assert_close(seen.mean(0), torch.zeros(seen.shape[1]), atol=1e-3, rtol=0)
    assert seen.std(0).max() <= 1
    assert seen.std(0)[:6].min() > 0.9  # brightness varies
    before = predictor.embed[0].usual.clone()
    predictor.measure(paintings[:1])  # one has no deviations
    assert torch.equal(predictor.embed[0].usual, before)


def test_adain_trains_its_decoder_only():
    model = AdaIN(VGGFeatures(["relu4_1"], pretrained=False)).train()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"decoder"}
    assert not model.encoder.training


# Files


def test_saved_model_comes_back_exactly(light_model, tmp_path):
    path, card = tmp_path / "new" / "model.safetensors", {"steps": 3, "data": ["a", "b"]}
    save_model(light_model, "light", path, card)
    assert model_card(path) == ("light", card)
    loaded = load_model(path)
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == light_model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in light_model.state_dict().items())


def test_half_precision_comes_back_as_float32_rounded_to_float16(light_model, tmp_path):
    save_model(light_model, "light", tmp_path / "half.safetensors", half=True)
    loaded = load_model(tmp_path / "half.safetensors").state_dict()
    for name, value in light_model.state_dict().items():
        assert loaded[name].dtype == value.dtype
        assert_close(loaded[name], value, atol=1e-7, rtol=2**-11)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"nonesuch\.safetensors: no such model file"):
        load_model(tmp_path / "nonesuch.safetensors")


def test_file_that_is_no_safetensors_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"this is not a model")
    with pytest.raises(ModelFileError, match=r"broken\.safetensors: not a model"):
        load_model(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "not a model of this package"),
        ({"model": "light", "card": "{"}, "not a model of this package"),
        ({"model": "other"}, "'other'.*light, paper"),
        ({"model": "light"}, "do not fit the network 'light'"),
        ({"model": "light", "options": "{"}, "not a model of this package"),
        ({"model": "light", "options": '{"styles": ["wave"]}'}, "'light' cannot be built from its header"),
        ({"model": "multi-style"}, "'multi-style' cannot be built from its header"),
    ],
)
def test_foreign_file_is_named_with_what_is_wrong(tmp_path, metadata, said):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata)
    with pytest.raises(ModelFileError, match=rf"foreign\.safetensors: .*{said}"):
        load_model(path)


def test_weights_of_another_shape_are_refused(light_model, tmp_path):
    path, state = tmp_path / "shape.safetensors", light_model.state_dict()
    state["affine.bias"] = torch.zeros(7)
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path, {"model": "light"})
    with pytest.raises(ModelFileError, match=r"shape\.safetensors: .*(?s:.*)affine\.bias"):
        load_model(path)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("border", [0, 1, 4])
@pytest.mark.parametrize("relu", [False, True])
def test_without_gradients_borders_are_the_same_mirror_images(border, layout, relu):
    image = torch.randn(2, 3, 9, 5).to(memory_format=layout)
    before, kept = image.clone(), F.relu(image) if relu else image
    expected = F.pad(kept, [border] * 4, mode="reflect") if border else kept
    with torch.inference_mode():
        padded = pad_by_reflection(image, border, relu)
    assert torch.equal(padded, expected)
    assert padded.is_contiguous(memory_format=layout)
    assert torch.equal(pad_by_reflection(image, border, relu), expected)
    assert torch.equal(image, before)


def test_binomial_filter_weights_neighbours_1_2_1_and_stops_what_alternates():
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 16
    weights = torch.tensor([0.0, 1, 2, 1, 0])
    assert torch.equal(binomial_filter(impulse)[0, 0], weights[:, None] * weights)
    checkerboard = (torch.arange(6)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert torch.equal(binomial_filter(checkerboard[None, None]), torch.zeros(1, 1, 6, 8))


def test_even_areas_unfold_without_a_checkerboard():
    unfolding = EvenUnfolding(5, 12)
    even = torch.randn(1, 5, 1, 1).expand(1, 5, 6, 8)
    unfolded = F.pixel_shuffle(unfolding(even), 2).unflatten(2, (6, 2)).unflatten(4, (8, 2))  # y, row, x, column
    assert unfolded.std() > 0.1
    assert_close(
        unfolded[:, :, :, 0, :, 0] + unfolded[:, :, :, 1, :, 1], unfolded[:, :, :, 0, :, 1] + unfolded[:, :, :, 1, :, 0]
    )


def test_interrupted_saving_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
    write = Path.write_bytes

    def interrupted(path, content):
        write(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(nn.Linear(2, 2), "light", path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, b"the old file")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(light_model, tmp_path, value):
    model = copy.deepcopy(light_model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value
    save_model(model, "light", tmp_path / "spoilt.safetensors")
    with pytest.raises(ModelFileError, match=r"spoilt\.safetensors: .*NaN or infinite"):
        load_model(tmp_path / "spoilt.safetensors")
