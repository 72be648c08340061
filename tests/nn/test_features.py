from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from arbitrary_nst.nn.features import VGGConfig, VGGFeatures, layer_names, pink_noise
from arbitrary_nst.runtime.weights import WeightsNotFoundError, shipped_features


@pytest.mark.parametrize(("configuration", "convolutions"), [("D", (2, 2, 3, 3, 3)), ("E", (2, 2, 4, 4, 4))])
def test_layer_names_are_those_of_the_papers(configuration, convolutions):
    expected = []
    for block, count in enumerate(convolutions, 1):
        expected += [f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")] + [f"pool{block}"]
    assert layer_names(make_layers(cfgs[configuration])) == expected


def test_returns_the_named_layers_with_the_sizes_of_vgg(tiny):
    shapes = {name: tuple(value.shape) for name, value in tiny(torch.rand(2, 3, 33, 48)).items()}
    assert shapes == {
        "relu1_1": (2, 64, 33, 48),
        "conv1_2": (2, 64, 33, 48),
        "pool1": (2, 64, 16, 24),
        "relu2_1": (2, 128, 16, 24),
    }


def test_has_nothing_beyond_the_deepest_layer(tiny):
    assert tiny.names[-1] == "relu2_1"
    assert len(tiny.network) == len(tiny.names) == 7


def test_owns_its_normalization_and_equals_the_network_run_by_hand(tiny):
    image = torch.rand(1, 3, 16, 16)
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    by_hand = torch.nn.Sequential(*tiny.network)((image - mean) / std)
    assert_close(tiny(image)["relu2_1"], by_hand)


def test_convolution_asked_for_with_its_relu_keeps_its_negative_values(tiny):
    features = tiny(torch.rand(1, 3, 16, 16))
    assert features["conv1_2"].min() < 0
    assert_close(features["pool1"], F.max_pool2d(features["conv1_2"].relu(), 2))


def test_batch_equals_the_stack_of_its_images(tiny):
    images = torch.rand(2, 3, 24, 24)
    alone = torch.cat([tiny(image[None])["relu2_1"] for image in images])
    assert_close(tiny(images)["relu2_1"], alone, atol=1e-4, rtol=1e-4)


def test_stays_frozen_when_its_owner_trains(tiny):
    owner = torch.nn.Sequential(tiny).train()
    assert owner.training
    assert not tiny.training
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_gradient_reaches_the_image(tiny):
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    tiny(image)["relu2_1"].sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_average_pooling_averages():
    average = VGGFeatures(["relu1_2", "pool1"], VGGConfig(pooling="average"), pretrained=False)
    features = average(torch.rand(1, 3, 16, 16))
    assert_close(features["pool1"], F.avg_pool2d(features["relu1_2"], 2))


def test_unit_activation_makes_the_mean_activation_on_pink_noise_one():
    features = VGGFeatures(["relu2_1", "conv1_1"], VGGConfig(unit_activation=True), pretrained=False)
    activations = features(pink_noise(256)[None])
    assert_close(torch.stack([value.abs().mean() for value in activations.values()]), torch.ones(2))
    assert list(activations) == ["relu2_1", "conv1_1"]


def test_unknown_network_names_the_known_ones(unchecked):
    with pytest.raises(ValueError, match=r"'vgg11'.*vgg16, vgg19"):
        VGGConfig("vgg11")  # type: ignore[arg-type]


def test_unknown_pooling_names_the_known_ones(unchecked):
    with pytest.raises(ValueError, match=r"'median'.*max or average"):
        VGGConfig(pooling="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(("layers", "named"), [(["relu1_1", "relu9_9"], "relu9_9"), ([], "to return")])
def test_unknown_layer_is_named_with_the_known_ones(layers, named):
    with pytest.raises(ValueError, match=rf"{named}.*conv1_1, relu1_1.*pool5"):
        VGGFeatures(layers, pretrained=False)


def test_pretrained_relu4_1_equals_torchvisions_network_run_by_hand(vgg16_file):
    state = torch.load(vgg16_file, weights_only=True)
    network = make_layers(cfgs["D"])
    network.load_state_dict({key.removeprefix("features."): state[key] for key in state if "features." in key})
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    image = pink_noise(64)[None]
    normalized = (image - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
    with torch.no_grad():
        by_hand = network[: layer_names(network).index("relu4_1") + 1](normalized)
        ours = VGGFeatures(["relu4_1", "relu5_1"])(image)["relu4_1"]  # deeper than what ships
        shipped = VGGFeatures(["relu4_1"])(image)["relu4_1"]
    assert by_hand.mean() > 1  # Oxford's weights expect pixels of 0 to 255: were they not, little would come through
    assert_close(ours, by_hand, atol=1e-2, rtol=1e-4)
    assert (shipped - by_hand).norm() < 1e-3 * by_hand.norm()


def test_shipped_layers_equal_torchvisions_to_half_precision(vgg16_file):
    original = torch.load(vgg16_file, weights_only=True)
    shipped = shipped_features("vgg16")
    assert len(shipped) == 2 * 10  # weights and biases of conv1_1 to conv4_3
    for name, weight in shipped.items():
        assert_close(weight.float(), original[name].float(), rtol=2**-11, atol=2**-25)


def test_every_layer_up_to_relu4_3_needs_neither_cache_nor_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert VGGFeatures(["relu1_1", "relu4_3"])(pink_noise(64)[None])["relu4_3"].mean() > 1
    assert not list(tmp_path.iterdir())


def test_missing_weights_are_named_with_their_place_and_the_cure(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsNotFoundError) as caught:
        VGGFeatures(["conv5_1"])
    for part in (
        "vgg16_features-amdegroot-88682ab5.pth",
        str(tmp_path / "hub" / "checkpoints"),
        "TORCH_HOME",
        "no route",
    ):
        assert part in str(caught.value)


def test_pink_noise_is_a_seeded_image_with_more_energy_in_low_frequencies():
    noise = pink_noise(64)
    assert torch.equal(noise, pink_noise(64))
    assert not torch.equal(noise, pink_noise(64, seed=1))
    assert noise.min() >= 0
    assert noise.max() <= 1
    power = torch.fft.rfft2(noise).abs().square()
    assert power[:, 1:5, 1:5].mean() > 20 * power[:, 20:30, 20:30].mean()


def test_reflecting_padding_sees_no_border_in_a_flat_picture():
    torch.manual_seed(0)
    zeros = VGGFeatures(["relu2_1"], pretrained=False)
    torch.manual_seed(0)
    reflecting = VGGFeatures(["relu2_1"], VGGConfig(padding="reflect"), pretrained=False)
    image = torch.full((1, 3, 16, 16), 0.7)
    flat = reflecting(image)["relu2_1"]
    assert_close(flat, flat[:, :, :1, :1].expand_as(flat))
    assert zeros(image)["relu2_1"].std((2, 3)).max() > 0.1
