import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.models import multi_style
from arbitrary_nst.models.files import save_model
from arbitrary_nst.stylizer import STYLE_SIZE, Stylizer, blend_codes


class Loud(nn.Module):
    """A style model whose pictures leave [0, 1], and which remembers the size of the paintings that it saw."""

    code_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def encode_style(self, style):
        self.seen.append(tuple(style.shape))
        return style.mean((2, 3))

    def forward(self, content, code):
        return content * 8 - 4 + code[:, :, None, None]


@pytest.fixture(scope="module")
def stylizer(light_model):
    return Stylizer(copy.deepcopy(light_model), "cpu", "float32")


# Codes


def test_blend_is_the_weighted_mean():
    codes = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0]])]
    assert_close(blend_codes(codes), torch.tensor([[0.5, 2.0]]))
    assert_close(blend_codes(codes, [3.0, 1.0]), torch.tensor([[0.75, 1.0]]))


def test_blend_takes_one_code_beside_one_for_each_photo():
    assert_close(blend_codes([torch.zeros(1, 2), torch.ones(3, 2)]), torch.full((3, 2), 0.5))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_matters_and_equal_codes_blend_to_themselves(weights, factor):
    codes = [torch.full((1, 2), float(index)) for index in range(len(weights))]
    assert_close(blend_codes(codes, [weight * factor for weight in weights]), blend_codes(codes, weights))
    assert_close(blend_codes([codes[-1]] * len(weights), weights), codes[-1])


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 2.0, 3.0], [0.0, 0.0], [1.0, -0.5], [1.0, float("nan")], [1.0, float("inf")]]
)
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        blend_codes([torch.zeros(1, 2)] * 2, weights)


def test_nothing_cannot_be_blended():
    with pytest.raises(ValueError, match="no style code"):
        blend_codes([])


# Paintings


@pytest.mark.parametrize(
    ("size", "seen"),
    [(STYLE_SIZE, (384, 576)), (100, (100, 150)), (400, (400, 600)), (9999, (400, 600)), (None, (400, 600))],
)
def test_large_paintings_are_shrunk_to_the_size_and_small_ones_left(size, seen):
    stylizer = Stylizer(Loud(), "cpu")
    stylizer.encode_style(torch.rand(2, 3, 400, 600), size)
    assert stylizer.model.seen == [(2, 3, *seen)]  # type: ignore[attr-defined]


def test_code_is_the_models(stylizer, light_model):
    style = torch.rand(2, 3, 64, 48)
    assert_close(stylizer.encode_style(style), light_model.encode_style(style), atol=1e-5, rtol=1e-5)


# Styles of the model's own


@pytest.fixture(scope="module")
def fixed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = multi_style(["wave", "ink"])
        for style in model.table:
            nn.init.uniform_(style, -1, 1)
    return Stylizer(model, "cpu", "float32")


def test_own_styles_are_known_by_name_and_blend(fixed):
    assert fixed.style_names == ("wave", "ink")
    content, codes = torch.rand(1, 3, 17, 20), [fixed.style_code(name) for name in fixed.style_names]
    assert_close(blend_codes(codes, [3, 1]), torch.tensor([[0.75, 0.25]]))
    pictures = [fixed(content, code) for code in (*codes, blend_codes(codes))]
    assert all(picture.shape == content.shape for picture in pictures)
    assert (pictures[0] - pictures[1]).abs().mean() > 1e-2


def test_model_of_own_styles_takes_no_painting_and_no_strength(fixed):
    with pytest.raises(ValueError, match="only its own styles: wave, ink; name one of them"):
        fixed.encode_style(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"alpha is 0\.5: .* no code of the photo .* leave it at 1"):
        fixed(torch.rand(1, 3, 16, 16), fixed.style_code("ink"), alpha=0.5)


def test_model_of_any_painting_has_no_names(stylizer):
    assert stylizer.style_names == ()
    with pytest.raises(ValueError, match="'wave': this model takes any painting; encode_style"):
        stylizer.style_code("wave")


# Pictures


def test_full_strength_is_the_model_itself(stylizer, light_model):
    content, code = torch.rand(1, 3, 33, 47), torch.randn(1, 100)
    assert_close(stylizer(content, code), light_model(content, code).detach(), atol=1e-5, rtol=1e-5)


def test_strength_zero_is_the_photos_own_code(stylizer):
    content = torch.rand(1, 3, 40, 40)
    own = stylizer(content, stylizer.encode_style(content))
    assert_close(stylizer(content, torch.randn(1, 100), alpha=0.0), own)


def test_strength_between_blends_the_codes(stylizer):
    content, code = torch.rand(1, 3, 40, 40), torch.randn(1, 100)
    blended = 0.75 * stylizer.encode_style(content) + 0.25 * code
    assert_close(stylizer(content, code, alpha=0.25), stylizer(content, blended))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range_is_refused(stylizer, alpha):
    with pytest.raises(ValueError, match=r"alpha is .* between 0"):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(1, 100), alpha)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 65)])
def test_picture_is_exactly_as_large_as_the_photo(stylizer, size):
    assert stylizer(torch.rand(1, 3, *size), torch.zeros(1, 100)).shape == (1, 3, *size)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_picture_is_float32_in_zero_to_one_on_the_cpu(precision):
    picture = Stylizer(Loud(), "cpu", precision)(torch.rand(1, 3, 16, 16), torch.zeros(1, 3))
    assert picture.dtype == torch.float32
    assert picture.device.type == "cpu"
    assert (picture.min(), picture.max()) == (0, 1)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_automatic_precision_is_bfloat16_where_the_device_multiplies_it(native, dtype, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.stylizer.fast_bfloat16", lambda device: native)
    assert Stylizer(Loud(), "cpu").dtype == dtype


def test_bfloat16_paints_nearly_the_same(stylizer, light_model):
    content, code = torch.rand(1, 3, 32, 32), torch.randn(1, 100)
    coarse = Stylizer(copy.deepcopy(light_model), "cpu", "bfloat16")(content, code)
    assert (coarse - stylizer(content, code)).abs().mean() < 0.02


@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_batch_equals_the_stack_of_its_photos(stylizer, codes, alpha):
    contents, code = torch.rand(2, 3, 24, 24), torch.randn(codes, 100)
    alone = [stylizer(contents[[i]], code[[i % codes]], alpha) for i in range(2)]
    assert_close(stylizer(contents, code, alpha), torch.cat(alone), atol=1e-4, rtol=1e-4)


BAD = {
    "without batch": torch.rand(3, 8, 8),
    "gray": torch.rand(1, 1, 8, 8),
    "with alpha": torch.rand(1, 4, 8, 8),
    "8 bit": torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    "channels last": torch.rand(1, 8, 8, 3),
    "empty": torch.rand(1, 3, 0, 8),
}


@pytest.mark.parametrize("image", BAD.values(), ids=BAD.keys())
def test_tensor_that_is_no_image_is_refused_with_its_shape_and_what_is_wanted(stylizer, image, unchecked):
    said = rf"\(B, 3, H, W\).*not {image.dtype}.*{', '.join(map(str, image.shape))}.*load_image"
    with pytest.raises(ValueError, match=f"content must be.*{said}"):
        stylizer(image, torch.zeros(1, 100))
    with pytest.raises(ValueError, match=f"style must be.*{said}"):
        stylizer.encode_style(image)


def test_unknown_precision_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"'float8'.*bfloat16"):
        Stylizer(Loud(), "cpu", "float8")  # type: ignore[arg-type]


def test_file_written_by_training_gives_the_same_pictures(light_model, stylizer, tmp_path):
    save_model(light_model, "light", tmp_path / "model.safetensors")
    loaded = Stylizer.from_pretrained(tmp_path / "model.safetensors", "cpu", "float32")
    content, code = torch.rand(1, 3, 24, 24), torch.randn(1, 100)
    assert_close(loaded(content, code), stylizer(content, code), atol=1e-5, rtol=1e-5)
