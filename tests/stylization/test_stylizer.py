import copy
import logging
import math
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import resize, save_image
from arbitrary_nst.image.color import luminance, match_covariance
from arbitrary_nst.models import CoarseToFine, multi_style
from arbitrary_nst.models.serialization import save_model
from arbitrary_nst.stylization import runner as runner_module
from arbitrary_nst.stylization import stylizer as stylizer_module
from arbitrary_nst.stylization.options import STYLE_SIZE
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

CODE = CoarseToFine.code_size


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
    content, code = torch.rand(1, 3, 33, 47), torch.randn(1, CODE)
    assert_close(stylizer(content, code), light_model(content, code).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"preserve_color": "luminance"}, {"masks": torch.ones(1, 1, 3, 3)}])
def test_strength_zero_is_the_photo(stylizer, options):
    pixels = (torch.rand(3, 100, 140) * 255).byte()
    content, code = torch.rand(1, 3, 100, 140), torch.randn(1, CODE)
    for tile in (None, 64):
        painted = stylizer(content, code, alpha=0.0, tile=tile, **options)
        assert torch.equal(painted, content)
        assert painted.data_ptr() != content.data_ptr()
        assert torch.equal(stylizer.paint_pixels(pixels, code, alpha=0.0, tile=tile, **options), pixels)


def test_strength_between_blends_the_codes_and_mixes_with_the_photo(stylizer):
    content, code = torch.rand(1, 3, 40, 40), torch.randn(1, CODE)
    blended = 0.75 * stylizer.encode_style(content) + 0.25 * code
    expected = torch.lerp(content, stylizer(content, blended), 1 - 0.75**2)
    assert_close(stylizer(content, code, alpha=0.25), expected)


def test_strength_comes_near_the_photo_without_a_step(stylizer):
    content, code = torch.rand(1, 3, 40, 40), torch.randn(1, CODE)
    apart = [float((stylizer(content, code, alpha=alpha) - content).abs().max()) for alpha in (0.01, 0.001)]
    assert apart[0] < 0.03
    assert apart[1] < 0.003


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range_is_refused(stylizer, alpha):
    with pytest.raises(ValueError, match=r"alpha is .* between 0"):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(1, CODE), alpha)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 65)])
def test_picture_is_exactly_as_large_as_the_photo(stylizer, size):
    assert stylizer(torch.rand(1, 3, *size), torch.zeros(1, CODE)).shape == (1, 3, *size)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_picture_is_float32_in_zero_to_one_on_the_cpu(precision):
    picture = Stylizer(Loud(), "cpu", precision)(torch.rand(1, 3, 16, 16), torch.zeros(1, 3))
    assert picture.dtype == torch.float32
    assert picture.device.type == "cpu"
    assert (picture.min(), picture.max()) == (0, 1)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_automatic_precision_is_bfloat16_where_the_device_multiplies_it(native, dtype, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.runtime.devices.fast_bfloat16", lambda device: native)
    assert Stylizer(Loud(), "cpu").dtype == dtype


def test_bfloat16_paints_nearly_the_same(stylizer, light_model):
    content, code = torch.rand(1, 3, 32, 32), torch.randn(1, CODE)
    coarse = Stylizer(copy.deepcopy(light_model), "cpu", "bfloat16")(content, code)
    assert (coarse - stylizer(content, code)).abs().mean() < 0.02


@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_batch_equals_the_stack_of_its_photos(stylizer, codes, alpha):
    contents, code = torch.rand(2, 3, 24, 24), torch.randn(codes, CODE)
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
        stylizer(image, torch.zeros(1, CODE))
    with pytest.raises(ValueError, match=f"style must be.*{said}"):
        stylizer.encode_style(image)


@pytest.mark.parametrize(
    ("values", "said"),
    [((0, 255), "from 0 to 255"), ((-2.1, 2.6), "from -2.1 to 2.6"), ((0, math.nan), "nan"), ((0, math.inf), "inf")],
)
def test_values_of_another_range_are_refused(stylizer, values, said):
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, 0, :2] = torch.tensor(values)
    for call in (partial(stylizer, code=torch.zeros(1, CODE)), stylizer.encode_style):
        with pytest.raises(ValueError, match=rf"in \[0, 1\].*{said}.*load_image"):
            call(image)
    with pytest.raises(ValueError, match=f"photo must be.*{said}"):
        stylizer.encode_style(torch.rand(1, 3, 8, 8), like=image)


def test_what_resizing_leaves_outside_the_range_is_clamped(stylizer):
    image, code = torch.rand(1, 3, 16, 16) * 1.2 - 0.1, torch.randn(1, CODE)
    assert torch.equal(stylizer(image, code), stylizer(image.clamp(0, 1), code))
    assert torch.equal(stylizer(image, code, alpha=0.0), image.clamp(0, 1))
    assert torch.equal(stylizer.encode_style(image), stylizer.encode_style(image.clamp(0, 1)))


@pytest.mark.parametrize("value", [Image.new("RGB", (8, 8)), np.zeros((1, 3, 8, 8), np.float32), [[0.0]], "photo.jpg"])
def test_what_is_no_tensor_is_named(stylizer, value, unchecked):
    code, kind = torch.zeros(1, CODE), type(value).__name__
    calls = {
        "content": lambda: stylizer(value, code),
        "style": lambda: stylizer.encode_style(value),
        "photo": lambda: stylizer.encode_style(torch.rand(1, 3, 8, 8), like=value),
        "pixels": lambda: stylizer.paint_pixels(value, code),
        "code": lambda: stylizer(torch.rand(1, 3, 8, 8), value),
        "masks": lambda: stylizer(torch.rand(1, 3, 8, 8), code, masks=value),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name} must be a tensor, not .*{kind}"):
            call()


@pytest.mark.parametrize(
    "made",
    [lambda *shape: torch.rand(shape).to_sparse(), lambda *shape: torch.rand(shape, device="meta")],
    ids=["sparse", "meta"],
)
def test_tensors_that_hold_no_numbers_of_their_own_are_refused(stylizer, made, tmp_path, unchecked):
    code, image, row = torch.zeros(1, CODE), torch.rand(1, 3, 8, 8), made(1, CODE)
    value, mask = made(1, 3, 8, 8), made(1, 1, 8, 8)
    calls = {
        "content": lambda: stylizer(value, code),
        "style": lambda: stylizer.encode_style(value),
        "photo": lambda: stylizer.encode_style(image, like=value),
        "pixels": lambda: stylizer.paint_pixels(value, code),
        "code": lambda: stylizer(image, row),
        "masks": lambda: stylizer(image, code, masks=mask),
        "image": lambda: save_image(value, tmp_path / "a.png"),
        "alpha": lambda: save_image(image, tmp_path / "a.png", mask),
    }
    for name, call in calls.items():
        with pytest.raises(UsageError, match=f"{name} must be a dense tensor"):
            call()
    with pytest.raises(UsageError, match="code must be a dense tensor"):
        blend_codes([code, row])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64, torch.float16, torch.bfloat16])
def test_images_codes_and_masks_may_be_of_any_floating_type(stylizer, dtype):
    content, style, code = torch.rand(1, 3, 40, 56).to(dtype), torch.rand(1, 3, 32, 32).to(dtype), torch.randn(1, CODE)
    masks, code = torch.rand(1, 1, 5, 5).to(dtype), code.to(dtype)
    assert_close(stylizer.encode_style(style, like=content), stylizer.encode_style(style.float(), like=content.float()))
    for alpha in (0.0, 0.5, 1.0):
        painted = stylizer(content, code, alpha, masks=masks)
        assert painted.dtype == torch.float32
        assert_close(painted, stylizer(content.float(), code.float(), alpha, masks=masks.float()))


@pytest.mark.parametrize(
    ("code", "said"), [(torch.zeros(1, CODE).long(), "int64"), (torch.full((1, CODE), math.nan), "NaN")]
)
def test_a_code_that_is_none_is_refused(stylizer, code, said, unchecked):
    with pytest.raises(ValueError, match=f"code .*{said}"):
        stylizer(torch.rand(1, 3, 8, 8), code)


IMAGE = torch.rand(1, 3, 8, 8)


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 0.5j, math.nan, -0.1, 1.1])
def test_an_alpha_that_is_no_number_from_0_to_1_is_refused(stylizer, value, unchecked):
    with pytest.raises(UsageError, match=r"alpha is .*between 0 .* and 1"):
        stylizer(IMAGE, torch.zeros(1, CODE), alpha=value)


@pytest.mark.parametrize("value", ["2", 1.5, True, 0, [1]])
def test_counts_that_are_no_whole_numbers_are_refused(stylizer, value, tmp_path, unchecked):
    with pytest.raises(UsageError, match=r"octaves is .*whole number"):
        stylizer(IMAGE, torch.zeros(1, CODE), octaves=value)
    with pytest.raises(UsageError, match=r"size is .*whole number"):
        stylizer.encode_style(IMAGE, size=value)
    with pytest.raises(UsageError, match="quality must be a whole number"):
        save_image(IMAGE, tmp_path / "a.jpg", quality=value)


@pytest.mark.parametrize("value", ["2", None, True, 0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_no_positive_number_is_refused(stylizer, value, unchecked):
    with pytest.raises(UsageError, match=r"scale is .*number"):
        stylizer.encode_style(IMAGE, scale=value)


@pytest.mark.parametrize("weights", [["a", 1], [None, 1], 1.0, "12x", [1], [1, math.nan], [0, 0], [-1, 2]])
def test_weights_that_are_none_are_refused(weights, unchecked):
    with pytest.raises(UsageError, match="weights"):
        blend_codes([torch.zeros(1, 4)] * 2, weights)


@pytest.mark.parametrize("codes", [[], [torch.zeros(1, 4), torch.zeros(1, 5)]])
def test_codes_that_do_not_blend_are_refused(codes, unchecked):
    with pytest.raises(UsageError, match="style code"):
        blend_codes(codes)
    with pytest.raises(TypeError, match="code must be a tensor"):
        blend_codes([torch.zeros(1, 4), None])  # type: ignore[list-item]


def test_numbers_of_numpy_and_tensors_of_one_are_numbers(stylizer, unchecked):
    code = torch.randn(1, CODE)
    expected = stylizer(IMAGE, code, alpha=0.5)
    for number in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5)):
        assert_close(stylizer(IMAGE, code, alpha=number, octaves=np.int64(1)), expected)


def test_broken_weights_are_named(light_model):
    broken = copy.deepcopy(light_model)
    next(broken.transformer.parameters()).data.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN: its weights are broken"):
        Stylizer(broken, "cpu", "float32")(torch.rand(1, 3, 16, 16), torch.zeros(1, CODE))


def test_results_are_ordinary_tensors(stylizer, fixed):
    content, code = torch.rand(2, 3, 24, 24), torch.randn(1, CODE, requires_grad=True)
    pixels = torch.zeros(3, 9, 9, dtype=torch.uint8)
    results = [
        stylizer(content, code),
        stylizer(content[:1], code, alpha=0.5, masks=torch.ones(1, 1, 2, 2), tile=64),
        stylizer(content, code, alpha=0.0),
        stylizer.encode_style(content),
        fixed.style_code("ink"),
        stylizer.paint_pixels(pixels, code).float(),
    ]
    for result in results:
        assert not result.is_inference()
        assert not result.requires_grad
        parameter = torch.ones_like(result, requires_grad=True)
        (result.mul_(2) * parameter).sum().backward()


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [default_device, default_dtype, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_settings_change_nothing(model_file, settings):
    content, style, masks = torch.rand(1, 3, 70, 90), torch.rand(1, 3, 40, 40), torch.rand(2, 1, 3, 3)
    pixels = (content[0] * 255).byte()

    def results() -> list[torch.Tensor]:
        stylizer = Stylizer.from_pretrained(model_file, "cpu", "float32")
        codes = torch.cat([stylizer.encode_style(style), stylizer.encode_style(style, 20, like=content)])
        painted = stylizer(content, codes, 0.5, masks=masks, preserve_color="luminance", tile=64)
        batch = stylizer(torch.cat([content, content]), blend_codes(codes.split(1), [1, 2]))
        return [codes, painted, batch, stylizer.paint_pixels(pixels, codes[:1])]

    expected = results()
    with settings():
        found = results()
    for result, value in zip(found, expected, strict=True):
        assert (result.dtype, result.device) == (value.dtype, value.device)
        assert torch.equal(result, value)


def test_unknown_precision_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"'float8'.*bfloat16"):
        Stylizer(Loud(), "cpu", "float8")  # type: ignore[arg-type]


def test_file_written_by_training_gives_the_same_pictures(light_model, stylizer, tmp_path):
    save_model(light_model, "light", tmp_path / "model.safetensors")
    loaded = Stylizer.from_pretrained(tmp_path / "model.safetensors", "cpu", "float32")
    content, code = torch.rand(1, 3, 24, 24), torch.randn(1, CODE)
    assert_close(loaded(content, code), stylizer(content, code), atol=1e-5, rtol=1e-5)


# Masks


def halves(height: int, width: int) -> torch.Tensor:
    """One mask for the left half, one for the right, hard."""
    left = torch.zeros(1, 1, height, width)
    left[..., : width // 2] = 1
    return torch.cat([left, 1 - left])


def test_one_mask_that_is_all_one_changes_nothing(stylizer):
    content, code = torch.rand(1, 3, 33, 47), torch.randn(1, CODE)
    assert torch.equal(stylizer(content, code, masks=torch.ones(1, 1, 5, 9)), stylizer(content, code))


def test_hard_masks_that_divide_the_photo_show_each_style_as_it_is(stylizer):
    content, codes = torch.rand(1, 3, 40, 60), torch.randn(2, CODE)
    painted = stylizer(content, codes, masks=halves(40, 60))
    assert torch.equal(painted[..., :30], stylizer(content, codes[:1])[..., :30])
    assert torch.equal(painted[..., 30:], stylizer(content, codes[1:])[..., 30:])


def test_masks_are_divided_by_their_sum_where_they_overlap(stylizer):
    content, codes = torch.rand(1, 3, 24, 24), torch.randn(2, CODE)
    masks = torch.tensor([0.9, 0.3]).view(2, 1, 1, 1)
    expected = 0.75 * stylizer(content, codes[:1]) + 0.25 * stylizer(content, codes[1:])
    assert_close(stylizer(content, codes, masks=masks), expected)


def test_where_masks_are_less_than_one_the_rest_is_the_photo(stylizer):
    content, code = torch.rand(1, 3, 24, 40), torch.randn(1, CODE)
    expected = 0.25 * stylizer(content, code) + 0.75 * content
    assert_close(stylizer(content, code, masks=torch.full((1, 1, 1, 1), 0.25)), expected)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("preserve_color", ["none", "luminance"])
@pytest.mark.parametrize("tile", [None, 64])
def test_what_no_mask_covers_is_left_alone(stylizer, alpha, preserve_color, tile):
    pixels = (torch.rand(3, 80, 140) * 255).byte()
    content, code, masks = torch.rand(1, 3, 80, 140), torch.randn(1, CODE), halves(80, 140)[:1]
    options = {"alpha": alpha, "masks": masks, "preserve_color": preserve_color, "tile": tile}
    painted = stylizer(content, code, **options)
    assert torch.equal(painted[..., 70:], content[..., 70:])
    assert (painted[..., :70] - content[..., :70]).abs().mean() > 0.01
    assert torch.equal(stylizer.paint_pixels(pixels, code, **options)[..., 70:], pixels[..., 70:])


def test_a_model_of_own_styles_leaves_alone_what_no_mask_covers(fixed):
    content, codes = torch.rand(1, 3, 40, 60), torch.cat([fixed.style_code(name) for name in fixed.style_names])
    masks = halves(40, 60)
    masks[1] = 0
    painted = fixed(content, codes, masks=masks)
    assert torch.equal(painted[..., :30], fixed(content, codes[:1])[..., :30])
    assert torch.equal(painted[..., 30:], content[..., 30:])


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (torch.ones(2, 4, 4), r"shape \(N, 1, h, w\).*\(2, 4, 4\)"),
        (torch.ones(2, 3, 4, 4), r"\(2, 3, 4, 4\)"),
        (torch.ones(2, 1, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.ones(2, 1, 0, 4), r"\(2, 1, 0, 4\)"),
        (torch.ones(3, 1, 4, 4), "2 styles need as many masks, not 3"),
        (torch.full((2, 1, 4, 4), 1.1), r"in \[0, 1\], not from 1\.1"),
        (torch.full((2, 1, 4, 4), -0.5), r"in \[0, 1\], not from -0\.5"),
        (torch.full((2, 1, 4, 4), float("nan")), r"in \[0, 1\]"),
    ],
)
def test_impossible_masks_are_refused(stylizer, masks, said, unchecked):
    with pytest.raises(ValueError, match=said):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(2, CODE), masks=masks)


def test_masks_are_for_one_photo(stylizer):
    with pytest.raises(ValueError, match="one photo, not 2"):
        stylizer(torch.rand(2, 3, 16, 16), torch.zeros(2, CODE), masks=torch.ones(2, 1, 4, 4))


# Colours


def test_luminance_alone_is_taken_from_the_picture(stylizer):
    content, code = 0.4 + 0.2 * torch.rand(1, 3, 40, 40), torch.randn(1, CODE)
    kept = stylizer(content, code, preserve_color="luminance")
    inside = ((kept > 0) & (kept < 1)).all(1, keepdim=True)
    assert inside.float().mean() > 0.3
    brightness = luminance(stylizer(content, code))
    assert_close(luminance(kept)[inside], brightness[inside], atol=1e-5, rtol=0)
    assert_close(
        (kept - luminance(kept))[inside.expand_as(kept)], (content - luminance(content))[inside.expand_as(kept)]
    )


def test_a_painting_in_the_photos_colours_gives_the_code_of_the_recoloured_one(stylizer):
    photo, style = torch.rand(1, 3, 40, 56) * 0.3, torch.rand(1, 3, 96, 100)
    recoloured = stylizer.encode_style(match_covariance(style, photo))
    assert_close(stylizer.encode_style(style, like=photo), recoloured)
    pixels = (photo[0] * 255).round().byte()
    assert_close(stylizer.encode_style(style, like=pixels), stylizer.encode_style(style, like=pixels[None] / 255))
    both = stylizer.encode_style(torch.cat([style, style]), like=photo)
    assert_close(both[1:], recoloured, atol=1e-3 * float(recoloured.abs().max()), rtol=0)


def test_a_large_photos_colours_are_those_of_some_of_its_pixels():
    photo = torch.rand(1, 3, 1500, 1600) * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    thinned = stylizer_module._thinned(photo, 2**16)
    assert thinned[0, 0].numel() == pytest.approx(2**16, rel=0.1)
    assert_close(thinned.mean((2, 3)), photo.mean((2, 3)), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("choice", "said"), [("covariance", "encode_style.*like=photo"), ("sepia", "'sepia'.*luminance")]
)
def test_what_is_no_matter_of_the_picture_is_refused(stylizer, choice, said, unchecked):
    with pytest.raises(ValueError, match=said):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(1, CODE), preserve_color=choice)


# Tiles and memory


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("preserve_color", ["none", "luminance"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_combination_in_tiles_and_in_pixels_is_that_of_the_whole(stylizer, alpha, preserve_color, masked):
    pixels = (torch.rand(3, 139, 201) * 255).byte()
    content = pixels[None].float() / 255
    codes, masks = torch.randn(1, CODE), None
    if masked:
        codes, masks = torch.randn(2, CODE), torch.rand(2, 1, 7, 11) * 0.7
    options = {"alpha": alpha, "masks": masks, "preserve_color": preserve_color}
    whole = stylizer(content, codes, **options)
    assert_close(stylizer(content, codes, tile=128, **options), whole, atol=5e-4, rtol=0)
    for tile in (None, 128):
        painted = stylizer.paint_pixels(pixels, codes, tile=tile, **options)
        assert painted.dtype == torch.uint8
        assert_close(painted[None].float() / 255, whole, atol=0.5 / 255 + 5e-4, rtol=0)


def test_pixels_lie_as_they_are_saved(stylizer):
    painted = stylizer.paint_pixels(torch.zeros(3, 40, 56, dtype=torch.uint8), torch.randn(1, CODE))
    assert painted.permute(1, 2, 0).is_contiguous()


def test_the_photos_own_code_is_nearly_the_same_from_pixels(stylizer, monkeypatch):
    pixels = (torch.rand(3, 500, 700) * 255).byte()
    content = pixels[None].float() / 255
    seen = []
    monkeypatch.setattr(stylizer, "encode_style", lambda style: seen.append(style) or torch.zeros(1, CODE))
    stylizer.content_code(pixels)
    assert_close(seen[0], resize(content, STYLE_SIZE), atol=1e-4, rtol=0)


def test_a_content_code_that_is_at_hand_is_not_computed_again(stylizer, monkeypatch):
    pixels, code = (torch.rand(3, 40, 56) * 255).byte(), torch.randn(1, CODE)
    expected, own = stylizer.paint_pixels(pixels, code, 0.5), stylizer.content_code(pixels)
    monkeypatch.setattr(stylizer, "encode_style", lambda *_: pytest.fail("encoded again"))
    assert torch.equal(stylizer.paint_pixels(pixels, code, 0.5, content_code=own), expected)


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("cache_trunk", [False, True])
@pytest.mark.parametrize("styles", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_progress_grows_to_one(stylizer, tile, cache_trunk, styles, monkeypatch):
    monkeypatch.setattr(runner_module, "LARGE", 0)
    monkeypatch.setattr(runner_module, "CACHE_MEMORY", 2**40 if cache_trunk else 0)
    masks, shares = torch.rand(styles, 1, 4, 4), []
    pixels, codes = torch.zeros(3, 100, 130, dtype=torch.uint8), torch.randn(styles, CODE)
    stylizer.paint_pixels(pixels, codes, masks=masks, tile=tile, progress=shares.append)
    assert shares == sorted(set(shares))
    assert len(shares) >= 20
    assert 0.95 < shares[-1] <= 1
    assert (shares[-1] == 1) == (tile is not None)


@pytest.mark.parametrize("tile", [0, -8, 63, 100.5, "large", True])
def test_impossible_tiles_are_refused(stylizer, tile, unchecked):
    with pytest.raises(ValueError, match=r"tile is .*at least 64"):
        stylizer(torch.rand(1, 3, 16, 16), torch.zeros(1, CODE), tile=tile)


def test_a_model_that_cannot_be_cut_says_so():
    with pytest.raises(ValueError, match="tile is 64: this model cannot be cut"):
        Stylizer(Loud(), "cpu")(torch.rand(1, 3, 16, 16), torch.zeros(1, 3), tile=64)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(4, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.int),
    ],
)
def test_what_are_no_pixels_is_refused(stylizer, pixels, unchecked):
    with pytest.raises(ValueError, match=r"uint8 of shape \(3, H, W\), not .*load_pixel_picture"):
        stylizer.paint_pixels(pixels, torch.zeros(1, CODE))


@pytest.mark.parametrize(("free", "side"), [(10**6, 1024), (10**9, None), (None, None)])
def test_tiles_are_chosen_where_the_whole_would_take_too_much(stylizer, free, side, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.stylization.runner.free_memory", lambda device: free)
    for tile, expected in (("auto", side), (None, None), (96, 96)):
        assert stylizer._runner.cut(torch.rand(1, 3, 100, 100), tile).side == expected


def starve(stylizer, monkeypatch, most: int, error: Exception) -> None:
    """Let the network fail with more pixels than `most`."""
    forward = stylizer._runner._forward

    def limited(model, view, code):
        if view.content[0, 0].numel() > most:
            raise error
        return forward(model, view, code)

    monkeypatch.setattr(stylizer._runner, "_forward", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_out_of_memory_goes_on_with_less_and_says_so(stylizer, error, monkeypatch, caplog):
    """In tiles, with the network's trunk whole; without; in smaller tiles."""
    tried = []

    def make(cut):
        tried.append((cut.side, cut.cache_trunk))
        if cut.side != 64:
            raise error
        return "done"

    monkeypatch.setattr(runner_module, "DEFAULT_TILE", 256)
    with caplog.at_level(logging.WARNING):
        assert stylizer._runner.within_memory(torch.rand(1, 3, 16, 16), "auto", make) == "done"
    assert tried == [(None, True), (256, True), (256, False), (128, False), (64, False)]
    sides = [record.message.split("tiles of ")[1] for record in caplog.records]
    assert sides == ["256 pixels", "256 pixels", "128 pixels", "64 pixels"]


def test_what_is_begun_again_is_the_same_picture(stylizer, monkeypatch, caplog):
    content, code = torch.rand(1, 3, 160, 800), torch.randn(1, CODE)
    whole = stylizer(content, code)
    monkeypatch.setattr(runner_module, "DEFAULT_TILE", 256)
    starve(stylizer, monkeypatch, 160 * 400, torch.OutOfMemoryError("no more"))
    with caplog.at_level(logging.WARNING):
        assert_close(stylizer(content, code), whole, atol=5e-4, rtol=0)
    assert len(caplog.records) == 1


def test_memory_that_never_suffices_and_other_errors_are_raised(stylizer, monkeypatch):
    content, code = torch.rand(1, 3, 100, 100), torch.zeros(1, CODE)
    starve(stylizer, monkeypatch, 0, torch.OutOfMemoryError("none at all"))
    for tile in ("auto", None, 128):
        with pytest.raises(torch.OutOfMemoryError, match="none at all"):
            stylizer(content, code, tile=tile)
    monkeypatch.undo()
    starve(stylizer, monkeypatch, 0, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        stylizer(content, code)
