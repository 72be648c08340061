"""Distances of a stylized image to its content and style image.

`image_statistics` looks at a picture once, `scores` compares; LPIPS, FID and ArtFID need networks that may not be had,
and are an `Unavailable` with its reason then. Lower is better everywhere but in `ssim`.

Shapes: B batch, C channels, H x W pixels. Images are float RGB in [0, 1].
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from arbitrary_nst.image.color import luminance
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import relative_content_loss, relative_difference
from arbitrary_nst.nn.statistics import gram_matrix, moments
from arbitrary_nst.runtime.weights import WeightsNotFoundError, torch_hub_state

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
"""Of VGG-16: style is compared in all of them, content in the last."""

OBJECTIVE = {"content_drift": 1.0, "style_gap": 10.0, "gram_gap": 3.0}
"""Weights of the one number that methods are ranked by: near what `RelativeObjective` minimizes, without its extras."""

DOWNLOAD_TIMEOUT = 20.0
"""Seconds for which a download may stand still before it is given up."""

ART_INCEPTION_URL = "https://huggingface.co/matthias-wright/art_inception/resolve/main/art_inception.pth"

Built = TypeVar("Built")


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics by which pictures are compared. Much smaller than their features, so many can be kept."""

    image: Float[Tensor, "B 3 H W"]
    content: Float[Tensor, "B C h w"]
    """The last of LAYERS."""
    moments: tuple[Float[Tensor, "B _"], ...]
    """Of every layer, as `nn.statistics.moments`."""
    grams: tuple[Float[Tensor, "B _ _"], ...]
    """Of every layer, as `nn.statistics.gram_matrix`."""


def feature_network(pretrained: bool = True) -> VGGFeatures:
    """VGG-16 with the original weights, as far as it is looked at. Raises WeightsNotFoundError."""
    return VGGFeatures(LAYERS, pretrained=pretrained)


@torch.no_grad()
def image_statistics(network: VGGFeatures, image: Float[Tensor, "B 3 H W"]) -> ImageStatistics:
    """Look at pictures, on the device where they and the network are."""
    features = network(image)
    return ImageStatistics(
        image,
        features[LAYERS[-1]],
        tuple(moments(features[layer]) for layer in LAYERS),
        tuple(gram_matrix(features[layer]) for layer in LAYERS),
    )


def style_gap(output: ImageStatistics, style: ImageStatistics) -> Float[Tensor, ""]:
    """Relative difference of channel means and deviations (Huang & Belongie 2017), mean over LAYERS."""
    pairs = zip(output.moments, style.moments, strict=True)
    return torch.stack([relative_difference(ours, theirs) for ours, theirs in pairs]).mean()


def gram_gap(output: ImageStatistics, style: ImageStatistics) -> Float[Tensor, ""]:
    """Relative difference of Gram matrices (Gatys et al. 2016), mean over LAYERS."""
    pairs = zip(output.grams, style.grams, strict=True)
    return torch.stack([relative_difference(ours, theirs) for ours, theirs in pairs]).mean()


def content_drift(output: ImageStatistics, content: ImageStatistics) -> Float[Tensor, ""]:
    """Mean squared difference of relu4_1 in units of the photo's own variance there."""
    return relative_content_loss(output.content, content.content)


def ssim(output: Float[Tensor, "B 3 H W"], content: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Structural similarity of luminance, 11x11 Gaussian window (Wang et al. 2004), where the window lies inside.

    1 for identical pictures. Sides must be at least 11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds to import

    ours, theirs = luminance(output), luminance(content)
    _, similarity = structural_similarity_index_measure(ours, theirs, sigma=1.5, data_range=1.0, return_full_image=True)
    return similarity[..., 5:-5, 5:-5].mean()


def scores(output: ImageStatistics, content: ImageStatistics, style: ImageStatistics) -> dict[str, float]:
    """Everything that needs no other network, by name; `objective` is the sum that OBJECTIVE weights."""
    values = {
        "style_gap": style_gap(output, style).item(),
        "gram_gap": gram_gap(output, style).item(),
        "content_drift": content_drift(output, content).item(),
        "ssim": ssim(output.image, content.image).item(),
    }
    return {"objective": sum(weight * values[name] for name, weight in OBJECTIVE.items())} | values


# Networks that may not be had


@dataclass(frozen=True)
class Unavailable:
    """A metric that cannot be computed here."""

    reason: str
    """What is missing, and how to get it."""

    def __str__(self) -> str:
        return f"not available: {self.reason}"


Distance = Callable[[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"]], float]


def perceptual_distance(device: torch.device | str = "cpu") -> Distance | Unavailable:
    """LPIPS with AlexNet (Zhang et al. 2018) of two batches of images, at least 32 pixels each side, mean over them."""

    def build() -> Distance:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights

        torch_hub_state(AlexNet_Weights.DEFAULT.url)  # says what to do where they are missing
        metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)

        @torch.no_grad()
        def distance(output: Tensor, content: Tensor) -> float:
            metric.reset()
            metric.update(output.to(device), content.to(device))
            return metric.compute().item()

        return distance

    return _attempt(build, "torchmetrics")


def inception(device: torch.device | str = "cpu") -> nn.Module | Unavailable:
    """The Inception v3 of FID (Heusel et al. 2017): uint8 images to 2048 numbers."""

    def build() -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            URL_INCEPTION_V3,
        )
        from torchmetrics.image.fid import FrechetInceptionDistance

        torch_hub_state(URL_INCEPTION_V3)  # says what to do where they are missing
        network = FrechetInceptionDistance(feature=2048, antialias=False).inception  # resizes as the original does
        network.num_features = 2048  # pyright: ignore[reportArgumentType]
        return network.to(device)

    return _attempt(build, "torch-fidelity")


class ArtInception(nn.Module):
    """The Inception v3 of ArtFID (Wright & Ommer 2022), trained on paintings: uint8 images to 2048 numbers.

    Raises ValueError where the weights are not this network's.
    """

    num_features = 2048

    def __init__(self, state: dict[str, Tensor]) -> None:
        from art_fid.inception import Inception3  # pyright: ignore[reportMissingImports]

        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.network = Inception3(init_weights=False)
        missing = self.network.load_state_dict(state, strict=False).missing_keys
        if any(name.startswith(("Conv2d", "Mixed")) for name in missing):
            raise ValueError(f"its weights lack {len(missing)} tensors: get another copy of {ART_INCEPTION_URL}")
        self.eval().requires_grad_(False)

    def forward(self, image: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        return self.network(image.float() / 255, return_features=True)


def art_inception(device: torch.device | str = "cpu") -> nn.Module | Unavailable:
    """`ArtInception` with its published weights."""

    def build() -> nn.Module:
        import art_fid.inception  # noqa: F401  # pyright: ignore[reportMissingImports]

        return ArtInception(torch_hub_state(ART_INCEPTION_URL)).to(device)

    return _attempt(build, "--no-deps art-fid")


@torch.no_grad()
def frechet_distance(
    network: nn.Module,
    outputs: Iterable[Float[Tensor, "B 3 H W"]],
    references: Iterable[Float[Tensor, "B 3 H W"]],
) -> float | Unavailable:
    """Fréchet distance of two sets of images in a network's features, at least two images in each.

    It falls with the number of pictures: only numbers from equally many, of the same pairs, can be compared.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    device = next(network.parameters()).device
    metric = FrechetInceptionDistance(feature=network).to(device)
    try:
        for images, real in ((outputs, False), (references, True)):
            for image in images:
                metric.update((image.to(device) * 255).round().byte(), real=real)
        return metric.compute().item()
    except Exception as error:  # too few pictures, memory: no reason to lose the other columns
        return Unavailable(" ".join(str(error).split()) or type(error).__name__)


def artfid(lpips: float, fid: float) -> float:
    """(1 + LPIPS to the photos) (1 + FID to the paintings), Wright & Ommer 2022, eq. 7; `fid` is in `ArtInception`."""
    return (1 + lpips) * (1 + fid)


def _attempt(build: Callable[[], Built], package: str) -> Built | Unavailable:
    """The result of `build`, or the reason for its failure: a package, weights, a network that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return build()
    except ModuleNotFoundError as error:
        return Unavailable(f"there is no module {error.name}: pip install {package}")
    except WeightsNotFoundError as error:
        return Unavailable(str(error))
    except Exception as error:  # whatever is wrong with it, the others can be computed
        return Unavailable(f"{type(error).__name__}: {' '.join(str(error).split())}")
    finally:
        socket.setdefaulttimeout(before)


def warping_error(
    output: Float[Tensor, "B 3 H W"], warped: Float[Tensor, "B 3 H W"], visible: Bool[Tensor, "B 1 H W"]
) -> Float[Tensor, ""]:
    """Mean squared difference of stylized frames to those before, moved along the motion (Lai et al. 2018, section 4).

    Args:
        warped: the stylized frames before, moved to where their parts are now.
        visible: where both show the same: not what has just come into view. NaN where nothing does.
    """
    squared = (output - warped).square().mean(1, keepdim=True)
    return (squared * visible).sum() / visible.sum()
