"""Any size with any options gives a picture of the promised size; options that contradict each other are named."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from arbitrary_nst.image import fitted_size, load_picture, save_image
from arbitrary_nst.stylization import jobs as batch
from arbitrary_nst.stylization.jobs import StylizeConfig, stylize_files
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

slowly = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure smaller would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
sides = st.one_of(st.integers(1, 9), st.integers(1, 200))
sizes = st.tuples(sides, sides)
strengths = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
weights = st.lists(st.floats(0, 1e6), min_size=2, max_size=2).filter(lambda pair: sum(pair) > 0)


def noise(size: tuple[int, int], channels: int = 3) -> torch.Tensor:
    return torch.rand(1, channels, *size)


@pytest.fixture(scope="module")
def stylizer(light_model):
    return Stylizer(deepcopy(light_model), "cpu")


# In Python


@pytest.mark.slow
@settings(slowly, max_examples=20)
@given(
    size=sizes,
    painting_size=sizes,
    style_size=st.one_of(st.none(), st.integers(1, 60)),
    scale=st.floats(0.25, 2),
    alpha=strengths,
    blend=weights,
    masks=st.one_of(st.none(), sizes),
    preserve_color=st.sampled_from(["none", "luminance", "covariance"]),
    tile=st.sampled_from(["auto", None, 64, 1000]),
    eight_bits=st.booleans(),
)
def test_a_photo_of_any_size_with_any_options_keeps_its_size(
    stylizer, size, painting_size, style_size, scale, alpha, blend, masks, preserve_color, tile, eight_bits
):
    photo = noise(size)
    like = photo if preserve_color == "covariance" else None
    codes = [stylizer.encode_style(noise(painting_size), style_size, scale, like) for _ in blend]
    code = torch.cat(codes) if masks else blend_codes(codes, blend)
    options = {
        "masks": torch.rand(2, 1, *masks) if masks else None,
        "preserve_color": "luminance" if preserve_color == "luminance" else "none",
        "tile": tile,
    }
    if eight_bits:
        pixels = stylizer.paint_pixels(photo[0].mul(255).byte(), code, alpha, **options)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == photo.shape[1:]
        return
    picture = stylizer(photo, code, alpha, **options)
    assert picture.shape == photo.shape
    assert picture.isfinite().all()
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("size", [(1, 700), (700, 2)])
@pytest.mark.parametrize("tile", [None, 64])
def test_a_strip_of_pixels_is_a_photo_and_a_painting_too(stylizer, size, tile):
    strip = noise(size)
    picture = stylizer(strip, stylizer.encode_style(strip), 0.5, tile=tile)
    assert picture.shape == strip.shape
    assert picture.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_photo_that_is_not_finite_is_refused(stylizer, value):
    photo = noise((40, 50))
    photo[..., 3:6, 7:9] = value
    with pytest.raises(ValueError, match=r"content must be .* in \[0, 1\], not from"):
        stylizer(photo, stylizer.encode_style(noise((30, 30))))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("alpha", -0.01),
        ("alpha", math.nan),
        ("preserve_color", "covariance"),
        ("preserve_color", "sepia"),
        ("masks", torch.rand(1, 3, 4, 4)),
        ("masks", torch.full((1, 1, 4, 4), 1.5)),
        ("masks", torch.full((1, 1, 4, 4), math.nan)),
        ("tile", 63),
        ("tile", -1),
        ("tile", 64.5),
    ],
)
@pytest.mark.parametrize("eight_bits", [False, True])
def test_a_call_names_what_is_wrong(unchecked, stylizer, name, wrong, eight_bits):
    code = stylizer.encode_style(noise((20, 20)))
    paint = stylizer.paint_pixels if eight_bits else stylizer
    photo = torch.zeros(3, 9, 9, dtype=torch.uint8) if eight_bits else noise((9, 9))
    with pytest.raises(ValueError, match="covariance" if wrong == "covariance" else name):
        paint(photo, code, **{name: wrong})


# Files


@pytest.fixture
def files(tmp_path, stylizer, model_file, monkeypatch):
    """Photos with and without transparency, paintings and masks of odd sizes; the model is not loaded every time."""
    save_image(noise((1, 60)), tmp_path / "content" / "strip.png")
    save_image(noise((37, 23)), tmp_path / "content" / "photo.jpg", exif=b"")
    save_image(noise((5, 6)), tmp_path / "content" / "clear.webp", noise((5, 6), 1))
    save_image(noise((1, 1)), tmp_path / "content" / "dot.gif")
    for name, size in {"one": (40, 31), "two": (3, 90)}.items():
        save_image(noise(size), tmp_path / "style" / f"{name}.png")
        save_image(noise(size), tmp_path / "mask" / f"{name}.png")
    monkeypatch.setattr(batch.Stylizer, "from_pretrained", lambda *_: stylizer)
    return {
        "content": (tmp_path / "content",),
        "style": (tmp_path / "style",),
        "mask": (tmp_path / "mask",),
        "output": tmp_path / "out",
        "model": str(model_file),
        "device": "cpu",
    }


options = st.fixed_dictionaries(
    {},
    optional={
        "alpha": strengths,
        "style_weights": weights.map(tuple),
        "style_scale": st.floats(0.25, 4),
        "style_size": st.integers(1, 40),
        "content_size": st.integers(1, 24),
        "preserve_color": st.sampled_from(["none", "luminance", "covariance"]),
        "tile": st.sampled_from(["auto", "off", 64, 100]),
        "format": st.sampled_from(["png", "jpg", "webp", "tiff"]),
        "quality": st.integers(1, 100),
        "strip": st.booleans(),
        "skip_existing": st.booleans(),
        "max_pixels": st.sampled_from([0, 40_000]),
    },
)


@pytest.mark.slow
@settings(slowly, max_examples=10)
@given(given_options=options, masked=st.booleans())
def test_files_with_any_options_come_out_as_promised(files, given_options, masked):
    asked = {**files, **given_options}
    if not masked:
        del asked["mask"]
    config = StylizeConfig(**asked)
    for path in config.output.glob("*"):
        path.unlink()
    assert stylize_files(config) == 0
    looks = ["one-png+two-png"] if masked or config.style_weights else ["one-png", "two-png"]
    photos = {name: config.content[0] / name for name in ("strip.png", "photo.jpg", "clear.webp", "dot.gif")}
    expected = {
        f"{name.replace('.jpg', '').replace('.', '-')}_stylized_{look}.{config.format}": photo
        for look in looks
        for name, photo in photos.items()
    }
    assert {path.name for path in config.output.iterdir()} == set(expected)
    for name, path in expected.items():
        photo, result = load_picture(path), load_picture(config.output / name)
        height, width = photo.rgb.shape[2:]
        if config.content_size is not None:
            height, width = fitted_size(height, width, config.content_size)
        assert result.rgb.shape[2:] == (height, width)
        assert (result.alpha is None) == (photo.alpha is None or config.format == "jpg")
    before = {path.name: path.stat().st_mtime_ns for path in config.output.iterdir()}
    if config.skip_existing:
        assert stylize_files(config) == 0
        assert {path.name: path.stat().st_mtime_ns for path in config.output.iterdir()} == before


WRONG = {
    "alpha": [-0.1, 1.1, math.nan, math.inf],
    "style_weights": [(1.0,), (1.0, 2.0, 3.0), (-1.0, 2.0), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0)],
    "style_scale": [0.2, 4.1, -1.0, math.nan, math.inf],
    "style_size": [0, -3],
    "content_size": [0, -3],
    "refine": [-1],
    "tile": [63, 0, -64],
    "quality": [0, 101, -1],
    "max_pixels": [-1],
    "style": [()],
    "backend": ["onnx"],
    "output": [Path("one_for_all.png")],
}


@settings(slowly, max_examples=60)
@given(data=st.data(), given_options=options)
def test_what_is_wrong_is_refused_by_its_name_whatever_else_is_given(files, data, given_options):
    names = data.draw(st.lists(st.sampled_from(sorted(WRONG)), min_size=1, max_size=3, unique=True))
    wrong = {name: data.draw(st.sampled_from(WRONG[name]), label=name) for name in names}
    asked = {**files, "mask": (), **given_options, **wrong}
    with pytest.raises(ValueError, match="|".join("--" + name.replace("_", "-") for name in names)):
        stylize_files(StylizeConfig(**asked))
    assert not files["output"].exists()


def test_as_many_masks_as_styles_whatever_the_weights(files):
    with pytest.raises(ValueError, match="--mask: 2 styles need as many masks, not 1"):
        stylize_files(StylizeConfig(**{**files, "mask": (files["mask"][0] / "one.png",), "style_weights": (1.0, 2.0)}))


def test_a_strip_that_would_become_enormous_is_refused_and_the_others_made(files, capsys):
    assert stylize_files(StylizeConfig(**files, content_size=99, max_pixels=100_000)) == 1
    said = capsys.readouterr()
    assert "3 pictures written, 1 failure" in said.out
    assert "strip.png: --content-size 99 would make it 5940 x 99, more pixels than the limit of 100000" in said.err


@pytest.mark.parametrize(
    ("name", "wrong"), [("size", 0), ("size", -5), ("scale", -1.0), ("scale", math.nan), ("scale", math.inf)]
)
def test_encoding_names_what_is_wrong(stylizer, name, wrong):
    with pytest.raises(ValueError, match=f"{name} is"):
        stylizer.encode_style(noise((9, 9)), **{name: wrong})
