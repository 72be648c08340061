import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.models import FixedStyles, multi_style, single_style
from arbitrary_nst.models.fixed_styles import JohnsonTransformer
from arbitrary_nst.models.serialization import load_model, model_options, save_model
from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d

NAMES = ("wave", "dots", "ink")


@pytest.fixture(scope="module")
def many() -> FixedStyles:
    """Three styles that differ, in evaluation mode. Tests that change a model change a copy."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = multi_style(NAMES).eval()
        for style in model.table:
            nn.init.uniform_(style, -1, 1)
    return model


# Sizes


def test_network_of_one_style_has_the_parameters_of_the_paper():
    model = single_style(["wave"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_679_235
    assert [style.numel() for style in model.table] == [2 * 1600]


def test_network_of_many_styles_has_two_numbers_a_channel_for_each(many):
    norms = [module for module in many.modules() if isinstance(module, ConditionalInstanceNorm2d)]
    assert len(norms) == 16
    assert sum(norm.channels for norm in norms) == 1603
    assert [style.numel() for style in many.table] == 3 * [2 * 1603]
    assert sum(parameter.numel() for parameter in many.transformer.parameters()) == 1_674_432


@pytest.mark.parametrize("size", [(1, 1), (5, 34), (17, 16)])
def test_picture_is_exactly_as_large_as_the_photo(many, size):
    assert many(torch.rand(1, 3, *size), many.style_code("ink")).shape == (1, 3, *size)


# Styles


def test_code_of_a_name_chooses_its_gammas_and_betas(many):
    code = many.style_code("dots")
    assert torch.equal(code, torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.equal(many.codes(torch.tensor([2, 0])), torch.eye(3)[[2, 0]])
    gammas, betas = zip(*many.affines(code), strict=True)
    assert torch.equal(torch.cat([*gammas, *betas], 1)[0], many.table[1])


def test_blending_codes_is_blending_gammas_and_betas(many):
    mixed = copy.deepcopy(many)
    with torch.no_grad():
        mixed.table[0].copy_(0.25 * many.table[0] + 0.75 * many.table[2])
    content, code = torch.rand(1, 3, 24, 24), torch.tensor([[0.25, 0.0, 0.75]])
    assert_close(many(content, code), mixed(content, mixed.style_code("wave")), atol=1e-5, rtol=1e-5)


def test_styles_begin_as_plain_instance_normalization():
    (style,) = single_style(["wave"]).table
    assert torch.equal(style, torch.cat([torch.ones(1600), torch.zeros(1600)]))


def test_picture_of_one_style_may_leave_zero_to_one_by_what_its_docstring_says():
    network = JohnsonTransformer(single=True)
    with torch.no_grad():
        network.to_rgb.bias.copy_(torch.tensor([-100.0, 0.0, 100.0]))  # type: ignore[union-attr]
    model = FixedStyles(["wave"], network)
    picture = model(torch.rand(1, 3, 16, 16), model.style_code("wave"))
    assert_close(picture[0, 0], torch.full((16, 16), 0.5 - 150 / 255))
    assert_close(picture[0, 2], torch.full((16, 16), 0.5 + 150 / 255))


@pytest.mark.parametrize("build", [single_style, multi_style])
def test_gradient_reaches_every_parameter_that_has_an_effect(build):
    model = build(["wave"])
    model(torch.rand(2, 3, 16, 16), model.style_code("wave")).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    norms = [name.removesuffix("norm") for name, m in model.named_modules() if isinstance(m, ConditionalInstanceNorm2d)]
    idle = {f"{name}conv.bias" for name in norms}  # a norm takes the mean away again
    without = {name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0}
    assert without <= idle


def test_gradient_reaches_the_styles_of_the_code_only(many):
    model = copy.deepcopy(many)
    model(torch.rand(1, 3, 16, 16), torch.tensor([[0.5, 0.0, 0.5]])).square().mean().backward()
    assert [bool(style.grad.abs().sum() > 0) for style in model.table] == [True, False, True]


# New styles


def test_new_styles_begin_as_the_mean_and_are_all_that_is_left_to_train(many):
    model = copy.deepcopy(many)
    model.add_styles(["oil", "ash"])
    assert model.style_names == (*NAMES, "oil", "ash")
    assert model.code_size == 5
    mean = torch.stack(list(many.table)).mean(0)
    assert_close([*model.table], [*many.table, mean, mean])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["table.3", "table.4"]
    content = torch.rand(1, 3, 16, 16)
    assert torch.equal(model(content, model.style_code("ink")), many(content, many.style_code("ink")))


# Errors and files


def test_names_must_be_some_different_and_few_enough(many):
    for build, names, said in (
        (multi_style, [], "at least one"),
        (multi_style, ["wave", "wave"], "name of its own: wave, wave"),
        (single_style, ["wave", "ink"], r"not 2 \(wave, ink\): choose multi-style"),
    ):
        with pytest.raises(ValueError, match=said):
            build(names)
    with pytest.raises(ValueError, match="name of its own"):
        copy.deepcopy(many).add_styles(["ink"])
    with pytest.raises(ValueError, match="choose multi-style"):
        single_style(["wave"]).add_styles(["ink"])


def test_unknown_name_and_any_painting_are_refused_with_the_known_names(many):
    with pytest.raises(ValueError, match="'oil': this model knows wave, dots, ink"):
        many.style_code("oil")
    with pytest.raises(ValueError, match="only its own styles: wave, dots, ink; name one of them"):
        many.encode_style(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(("build", "name"), [(single_style, "single-style"), (multi_style, "multi-style")])
def test_file_keeps_the_names(build, name, tmp_path):
    model = build(["großes Bild v1.2"]).eval()
    save_model(model, name, tmp_path / "model.safetensors")
    assert model_options(tmp_path / "model.safetensors") == {"styles": ["großes Bild v1.2"]}
    loaded = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, FixedStyles)
    assert loaded.style_names == model.style_names
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
