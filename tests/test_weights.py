from urllib.error import URLError

import pytest
import timm
import torch

from arbitrary_nst import weights
from arbitrary_nst.weights import WeightsNotFoundError, shipped_weights, timm_backbone, torch_hub_state

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


def test_missing_backbone_is_named_with_its_cache_and_the_cure(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("cannot find the file in the cache")

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsNotFoundError) as caught:
        timm_backbone("tf_efficientnet_lite0", pretrained=True)
    for part in ("tf_efficientnet_lite0", str(tmp_path), "cannot find the file", "HF_HOME"):
        assert part in str(caught.value)


def test_failure_that_is_not_about_weights_is_left_as_it_is(monkeypatch):
    def broken(*arguments, **options):
        raise OSError("something else")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(OSError, match="something else"):
        timm_backbone("tf_efficientnet_lite0", pretrained=False)


def test_pretrained_backbone_comes_from_the_cache(efficientnet_file):
    from safetensors.torch import load_file

    backbone = timm_backbone("tf_efficientnet_lite0", pretrained=True, features_only=True, out_indices=(0,))
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], load_file(efficientnet_file)["conv_stem.weight"])


def test_shipped_weights_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "light.safetensors").touch()
    monkeypatch.setattr(weights, "files", lambda package: tmp_path)
    assert shipped_weights("light") == tmp_path / "pretrained" / "light.safetensors"


def test_unknown_shipped_weights_are_named_with_those_that_ship(tmp_path, monkeypatch):
    (tmp_path / "pretrained").mkdir()
    for name in ("b", "a"):
        (tmp_path / "pretrained" / f"{name}.safetensors").touch()
    monkeypatch.setattr(weights, "files", lambda package: tmp_path)
    with pytest.raises(WeightsNotFoundError, match=r"'nonesuch'.*those that do: a, b"):
        shipped_weights("nonesuch")
