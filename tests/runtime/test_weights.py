from urllib.error import URLError

import pytest
import timm
import torch
from safetensors import safe_open
from torch.testing import assert_close

from arbitrary_nst.runtime import weights
from arbitrary_nst.runtime.weights import (
    WeightsNotFoundError,
    shipped_features,
    shipped_weights,
    timm_backbone,
    torch_hub_state,
)

URL = "https://example.invalid/models/tiny-1234.pth"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, and no network."""

    def offline(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_cached_state_is_read_without_network(hub):
    state = {"weight": torch.arange(3.0)}
    torch.save(state, hub / "tiny-1234.pth")
    assert torch.equal(torch_hub_state(URL)["weight"], state["weight"])


def test_missing_state_is_named_with_its_folder_and_the_cure(hub):
    with pytest.raises(WeightsNotFoundError) as caught:
        torch_hub_state(URL)
    for part in ("tiny-1234.pth is not in", str(hub), "no route to host", URL, "TORCH_HOME"):
        assert part in str(caught.value)


def test_cached_file_with_code_in_it_is_not_run(hub):
    class Attack:
        def __reduce__(self):
            return (exec, ("raise SystemExit('the pickle was run')",))

    torch.save({"weight": Attack()}, hub / "tiny-1234.pth")
    with pytest.raises(Exception, match=r"weights_only"):
        torch_hub_state(URL)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Pretrained weights cannot be had from timm; the Hugging Face cache that is said to lack them."""
    create = timm.create_model

    def refuse(name, pretrained, **options):
        if pretrained:
            raise OSError("cannot find the file in the cache")
        return create(name, pretrained=False, **options)

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", refuse)
    return tmp_path


@pytest.mark.parametrize(("name", "stages"), [("tf_efficientnet_lite0", [4]), ("resnet18", [0])])
def test_missing_backbone_is_named_with_its_cache_and_the_cure(name, stages, offline):
    with pytest.raises(WeightsNotFoundError) as caught:
        timm_backbone(name, pretrained=True, stages=stages)
    for part in (name, str(offline), "cannot find the file", "HF_HOME"):
        assert part in str(caught.value)


def test_failure_that_is_not_about_weights_is_left_as_it_is(monkeypatch):
    def broken(*arguments, **options):
        raise OSError("something else")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(OSError, match="something else"):
        timm_backbone("tf_efficientnet_lite0", pretrained=False, stages=[0])


def test_stages_that_ship_need_no_cache_and_equal_the_original_to_half_precision(offline, efficientnet_file):
    from safetensors.torch import load_file

    original, backbone = load_file(efficientnet_file), timm_backbone("tf_efficientnet_lite0", True, [0, 1, 2, 3])
    state = backbone.state_dict()
    assert len(backbone.blocks) == 5
    for name, weight in state.items():
        assert_close(weight, original[name], rtol=2**-11, atol=2**-25)


def test_stages_that_do_not_ship_come_from_the_cache(efficientnet_file):
    from safetensors.torch import load_file

    backbone = timm_backbone("tf_efficientnet_lite0", pretrained=True, stages=[4])
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], load_file(efficientnet_file)["conv_stem.weight"])


@pytest.mark.parametrize(
    ("network", "named"),
    [("vgg16", ("Simonyan", "CC BY 4.0", "float16")), ("tf_efficientnet_lite0", ("Google", "Apache-2.0", "float16"))],
)
def test_header_of_shipped_features_says_whose_they_are(network, named):
    with safe_open(weights.PRETRAINED / f"{network}_features.safetensors", "pt") as file:
        text = " ".join(file.metadata().values())
    assert all(word in text for word in named)


def test_a_network_that_does_not_ship_has_no_features():
    assert shipped_features("vgg19") == {}


def test_shipped_weights_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "light.safetensors").touch()
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path)
    assert shipped_weights("light") == tmp_path / "light.safetensors"


def test_unknown_shipped_weights_are_named_with_those_that_ship(tmp_path, monkeypatch):
    for name in ("b", "a", "vgg16_features"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path)
    for name in ("nonesuch", "vgg16_features"):
        with pytest.raises(WeightsNotFoundError, match=rf"'{name}'.*those that do: a, b\)"):
            shipped_weights(name)
