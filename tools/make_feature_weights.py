"""Make the feature networks that ship: the layers that are looked at, in half precision, with where they come from.

    python tools/make_feature_weights.py

It reads torchvision's VGG-16 and timm's EfficientNet-Lite0 from their caches, or downloads them.
"""

from pathlib import Path

import timm
import torch
from safetensors.torch import save as encoded
from torch import Tensor
from torchvision.models import VGG16_Weights

from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.runtime.weights import FEATURES, torch_hub_state

FOLDER = Path(__file__).resolve().parents[1] / "arbitrary_nst" / "assets" / "pretrained"
DEEPEST = "relu4_3"

VGG = {
    "title": "VGG-16, convolutions up to conv4_3",
    "attribution": "Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford: "
    "Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015",
    "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "source": VGG16_Weights.IMAGENET1K_FEATURES.url,
    "changes": "layers after conv4_3 left out; float16",
}
EFFICIENTNET = {
    "title": "EfficientNet-Lite0, stem and the first five groups of blocks",
    "attribution": "Google (github.com/tensorflow/tpu, EfficientNet-Lite); PyTorch weights by Ross Wightman (timm)",
    "licence": "Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0",
    "source": "https://huggingface.co/timm/tf_efficientnet_lite0.in1k",
    "changes": "layers after blocks.4 left out; float16",
}


def main() -> None:
    vgg = VGGFeatures([DEEPEST], pretrained=False)
    state = torch_hub_state(VGG["source"])
    save("vgg16", {f"features.{name}": state[f"features.{name}"] for name in vgg.network.state_dict()}, VGG)

    name = "tf_efficientnet_lite0"
    network = timm.create_model(name, pretrained=True, features_only=True, out_indices=(0, 1, 2, 3))
    network.blocks = network.blocks[: network.feature_info.get_dicts()[-1]["stage"]]
    save(name, network.state_dict(), EFFICIENTNET)


def save(network: str, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path = FOLDER / f"{network}{FEATURES}.safetensors"
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    path.write_bytes(encoded(half, metadata))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
