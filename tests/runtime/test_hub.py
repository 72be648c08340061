"""Weights from and to the Hugging Face hub, against a stand-in of its HTTP interface on this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arbitrary_nst.commands import main
from arbitrary_nst.errors import HubError, WeightsNotFoundError
from arbitrary_nst.models.serialization import load_model, model_file, model_identity
from arbitrary_nst.runtime import hub as client
from arbitrary_nst.stylization.stylizer import Stylizer
from hub_server import TOKEN, serving

ROOT = Path(__file__).resolve().parents[2]


def at_endpoint(url, monkeypatch):
    """As HF_ENDPOINT does when huggingface_hub is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)


@pytest.fixture(scope="module")
def server():
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The stand-in, empty, with a cache and a token of its own."""
    from huggingface_hub import constants

    at_endpoint(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.repositories.clear()
    server.requests.clear()
    client.download.cache_clear()
    yield server
    client.download.cache_clear()


@pytest.fixture
def stored(hub, model_file):
    """A repository with the random model on its main branch."""
    hub.repositories["ann/paint"] = {"main": {"model.safetensors": model_file.read_bytes()}}
    return hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", True),
        ("owner/name-1.0_b", True),
        ("owner/name@v1", True),
        ("owner/name@refs/pr/1", True),
        ("light", False),
        ("runs/light.safetensors", False),
        ("./runs/light", False),
        ("../light", False),
        ("/runs/light", False),
        ("a/b/c", False),
        ("owner/name@", False),
        ("gallery:a/b", False),
        ("owner/../x", False),
    ],
)
def test_names_of_repositories(text, expected):
    assert client.is_repository(text) is expected


def test_a_model_is_loaded_by_its_repository_and_asked_for_once(stored, model_file):
    stylizer = Stylizer.from_pretrained("ann/paint", "cpu")
    assert stylizer.model.code_size == load_model(model_file).code_size
    asked = len(stored.requests)
    assert model_identity("ann/paint") == model_identity(model_file)
    assert len(stored.requests) == asked


def test_only_the_safetensors_file_is_asked_for(stored):
    stored.repositories["ann/paint"]["main"]["pytorch_model.bin"] = b"pickle"
    model_file("ann/paint")
    assert {request.rpartition("/")[2] for request in stored.requests} == {"model.safetensors"}


def test_without_a_network_the_cached_file_is_taken(stored, model_file, monkeypatch):
    from huggingface_hub import constants

    client.download("ann/paint")
    client.download.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert client.download("ann/paint").read_bytes() == model_file.read_bytes()


def test_a_revision_is_chosen_by_an_at_sign(stored):
    stored.repositories["ann/paint"]["v1"] = {"model.safetensors": b"first"}
    assert client.download("ann/paint@v1").read_bytes() == b"first"
    commit = stored.commit("ann/paint", "v1")
    assert client.download(f"ann/paint@{commit}").read_bytes() == b"first"
    with pytest.raises(WeightsNotFoundError, match="v9"):
        client.download("ann/paint@v9")


@pytest.mark.parametrize("matter", ["repository", "file", "offline", "unreachable"])
def test_what_cannot_be_had_is_one_line(stored, matter, monkeypatch, pictures, capsys):
    from huggingface_hub import constants

    source = "ann/other" if matter == "repository" else "ann/paint"
    if matter == "file":
        stored.repositories["ann/paint"]["main"] = {"pytorch_model.bin": b"pickle"}
    elif matter == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif matter == "unreachable":
        at_endpoint("http://127.0.0.1:9", monkeypatch)
    began = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match=source):
        model_file(source)
    assert time.monotonic() - began < 5  # no retries
    paths = [
        "--content",
        str(pictures / "content"),
        "--style",
        str(pictures / "style"),
        "--output",
        str(pictures / "o"),
    ]
    assert main(["stylize", *paths, "--model", source]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert source in errors[0]


def test_a_file_that_is_no_model_is_refused(stored, capsys):
    stored.repositories["ann/paint"]["main"] = {"model.safetensors": b"no model"}
    assert main(["style", "show", "--model", "ann/paint", "--output", "x.png"]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_a_folder_here_comes_before_a_repository(stored, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann" / "paint").mkdir(parents=True)
    (tmp_path / "ann" / "paint" / "model.safetensors").write_bytes(model_file.read_bytes())
    assert model_identity("ann/paint") == model_identity(model_file)
    assert not stored.requests


def test_weights_and_card_are_uploaded(hub, model_file, tmp_path, capsys):
    assert main(["export", "--hub", "ann/new", "--model", str(model_file)]) == 0
    files = hub.repositories["ann/new"]["main"]
    assert sorted(files) == ["README.md", "model.safetensors"]
    assert files["model.safetensors"] == model_file.read_bytes()
    card = files["README.md"].decode()
    assert card.startswith("---\n")
    assert "library_name: arbitrary_nst" in card
    assert 'Stylizer.from_pretrained("ann/new")' in card
    assert hub.commit("ann/new") in capsys.readouterr().out
    assert model_identity("ann/new") == model_identity(model_file)


def test_the_card_of_a_training_run_is_the_readme(hub, model_file, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(model_file.read_bytes())
    (tmp_path / "model_card.md").write_text("# Model card: mine\n", encoding="utf-8")
    assert main(["export", "--hub", "ann/run@trial", "--model", str(tmp_path)]) == 0
    assert "# Model card: mine" in hub.repositories["ann/run"]["trial"]["README.md"].decode()
    assert hub.repositories["ann/run"]["main"] == {}


def test_an_upload_without_a_token_is_one_line(hub, model_file, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["export", "--hub", "ann/new", "--model", str(model_file)]) == 1
    errors = capsys.readouterr().err.strip()
    assert "hf auth login" in errors
    assert "hf_wrong" not in errors
    with pytest.raises(HubError, match="ann/new"):
        client.upload(model_file, "card", "ann/new")


@pytest.mark.parametrize("options", [[], ["--hub", "nowhere"], ["--hub", "a/b/c"]])
def test_an_export_without_a_place_is_a_usage_error(options):
    assert main(["export", *options]) == 2


@pytest.mark.slow
def test_the_commands_work_by_environment_alone(hub, model_file, pictures):
    """In processes of their own, which read HF_ENDPOINT and HF_HOME as they start."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(pictures / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
    }
    environment.pop("HF_HUB_CACHE", None)

    def run(*arguments):
        command = [sys.executable, "-m", "arbitrary_nst", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    uploaded = run("export", "--hub", "ann/new", "--model", model_file)
    assert uploaded.returncode == 0, uploaded.stderr
    paths = ["--content", pictures / "content" / "lake.jpg", "--style", pictures / "style" / "dots.png"]
    made = run("stylize", *paths, "--output", pictures / "out.png", "--model", "ann/new", "--device", "cpu")
    assert made.returncode == 0, made.stderr
    assert (pictures / "out.png").is_file()
    assert any((pictures / "home" / "hub").rglob("model.safetensors"))
