"""Results of one pass, optimized further: from there, of the same size, and only where there is a painting."""

import pytest
import torch
import torch.nn.functional as F

from arbitrary_nst.image import load_image, load_picture
from arbitrary_nst.optimization.loop import refine


def blobs(height: int, width: int, seed: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0.05, 0.95)


@pytest.mark.slow
def test_refining_begins_from_the_result_at_every_scale():
    photo, result, painting = blobs(128, 144, 1), blobs(128, 144, 2), blobs(70, 64, 3)
    result[..., 60:70, 60:70] = 1 - result[..., 60:70, 60:70]  # of a size that the coarse scale does not see
    refined = refine(photo, result, [painting], 1, device="cpu")
    assert refined.shape == result.shape
    assert 1e-4 < (refined - result).abs().mean() < 0.02
    assert (refined - result).abs().mean() < 0.1 * (refined - photo).abs().mean()


def test_refined_results_are_as_large_as_the_photo_and_keep_its_transparency(stylize, pictures):
    plain, output = pictures / "plain", pictures / "out"
    style = pictures / "style" / "dots.png"
    assert stylize(style=style, output=plain) == 0
    assert stylize("--refine", "2", style=style) == 0
    for name in ("lake_stylized_dots-png.png", "deep/logo-png_stylized_dots-png.png"):
        before, after = load_picture(plain / name), load_picture(output / name)
        assert after.rgb.shape == before.rgb.shape
        assert 1e-3 < (after.rgb - before.rgb).abs().mean() < 0.2
    alpha, kept = (load_picture(folder / "deep/logo-png_stylized_dots-png.png").alpha for folder in (plain, output))
    assert alpha is not None
    assert kept is not None
    assert torch.equal(kept, alpha)


@pytest.mark.slow
def test_blends_are_refined_for_all_their_paintings(stylize, pictures):
    content = pictures / "content" / "lake.jpg"
    for name, weights in (("one.png", ("1", "0")), ("both.png", ("1", "1"))):
        options = ("--refine", "2", "--style-weights", *weights)
        assert stylize(*options, content=content, output=pictures / name) == 0
    assert not torch.equal(load_image(pictures / "one.png"), load_image(pictures / "both.png"))


@pytest.mark.parametrize("options", [("--alpha", "0.5"), ("--mask", "MASK", "MASK"), ("--refine", "-1")])
def test_what_cannot_be_refined_is_refused(stylize, pictures, options, capsys):
    given = [str(pictures / "style" / "dots.png") if option == "MASK" else option for option in options]
    assert stylize("--refine", "2", *given) == 2
    assert "--refine" in capsys.readouterr().err
