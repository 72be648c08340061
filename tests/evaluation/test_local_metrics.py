"""The scores place by place: by hand, at their extremes, and beside the script that computes them independently."""

import importlib.util
import sys

import pytest
import torch

from arbitrary_nst.evaluation.local_metrics import COLUMNS, Judge, busy, contrast, local_scores, views
from arbitrary_nst.evaluation.metrics import feature_network
from arbitrary_nst.image import load_image, resize, save_image
from arbitrary_nst.nn.features import VGGFeatures

Networks = tuple[VGGFeatures, Judge]


@pytest.fixture(scope="module")
def networks() -> Networks:
    return feature_network(), Judge()


@pytest.fixture(scope="module")
def reference(shared):
    """The script that scores independently of this package."""
    path = shared / "score" / "score_local.py"
    if not path.is_file():
        pytest.skip(f"no {path}")
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("score_local", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def scores(networks: Networks, octaves, *images):
    return local_scores(*(views(*networks, image, octaves) for image in images))


def noisy(image, deviation):
    generator = torch.Generator().manual_seed(1)
    return (image + deviation * torch.randn(image.shape, generator=generator)).clamp(0, 1)


@pytest.mark.usefixtures("vgg16_file", "efficientnet_file")
def test_every_column_equals_the_independent_script(reference, shared, networks, tmp_path):
    """Wide, tall and odd sizes, a flat sky, and a painting that is too small for the larger octave."""
    folders = {kind: shared / "data" / "dev" / kind for kind in ("content", "style")}
    chosen = {kind: sorted(folder.glob("*.png"))[:2] for kind, folder in folders.items()}
    if not all(len(files) == 2 for files in chosen.values()):
        pytest.skip(f"no pictures in {shared / 'data' / 'dev'}")
    sizes = {"content": [(161, 203), (230, 150)], "style": [(170, 160), (110, 130)]}
    images = {}
    for kind, files in chosen.items():
        for path, size in zip(files, sizes[kind], strict=True):
            image = resize(load_image(path), size)
            image[:, :, : size[0] // 3] = 0.8
            images[kind, path.stem] = image
            save_image(image, tmp_path / kind / f"{path.stem}.png")
    for _, content in [key for key in images if key[0] == "content"]:
        for _, style in [key for key in images if key[0] == "style"]:
            photo = images["content", content]
            mixed = torch.lerp(photo, resize(images["style", style], (photo.shape[2], photo.shape[3])), 0.6)
            save_image(noisy(mixed, 0.05), tmp_path / "outputs" / f"{content}_stylized_{style}.png")
    expected = reference.score(tmp_path / "content", tmp_path / "style", tmp_path / "outputs", [96, 150])
    assert len(expected) == 4
    for name, row in expected.items():
        content, style = name.split("_stylized_")
        files = [f"outputs/{name}", f"content/{content}", f"style/{style}"]
        ours = scores(networks, [150, 96], *(load_image(tmp_path / f"{file}.png") for file in files))
        assert ours == pytest.approx(row, abs=1e-3)
        assert ours.keys() == row.keys() == set(COLUMNS)


def test_an_untouched_photo_keeps_its_structure_and_a_painting_has_its_style(networks):
    photo, painting = (torch.rand(1, 3, 64, 64) for _ in range(2))
    untouched, painted = (scores(networks, [64], output, photo, painting) for output in (photo, painting))
    for prefix in ("", "judge_"):
        assert untouched[f"{prefix}structure"] == pytest.approx(0, abs=1e-5)
        assert painted[f"{prefix}style"] == pytest.approx(0, abs=1e-5)
        assert untouched[f"{prefix}style"] > 0.01
        assert painted[f"{prefix}structure"] > 0.01


def test_pictures_are_not_enlarged_and_no_common_octave_has_no_columns(networks: Networks):
    image = torch.rand(1, 3, 48, 70)
    assert {octave: tuple(view.image.shape[2:]) for octave, view in views(*networks, image, [32, 48, 49]).items()} == {
        32: (32, 47),
        48: (48, 70),
    }
    assert scores(networks, [49], image, image, image) == {}


def test_busy_is_the_logarithm_of_contrast_beyond_that_of_calm_areas_of_the_painting():
    flat = torch.full((1, 3, 64, 64), 0.5)
    rows = torch.arange(64) % 2 * 2.0 - 1  # windows of 3 pixels hold two rows of one kind and one of the other

    def striped(amplitude):
        return flat + amplitude * rows[:, None]

    deviation = (8 / 9) ** 0.5
    assert contrast(striped(0.1)).mean().item() == pytest.approx(0.1 * deviation, rel=1e-4)
    found = busy(striped(0.1), flat, striped(0.02))
    assert found == pytest.approx(torch.tensor(5.0).log().item(), rel=1e-3)
    assert busy(striped(0.01), flat, striped(0.02)) == 0
    calmest = busy(striped(0.1), flat, flat)  # no painting is calmer than 0.008
    assert calmest == pytest.approx(torch.tensor(0.1 * deviation / 0.008).log().item(), rel=1e-3)
    assert busy(flat, striped(0.1), flat) is None
