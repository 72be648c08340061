"""A run that is taken to another folder in pieces, trained there, and brought back, as the example does it."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from arbitrary_nst.models.serialization import load_model
from runs import make_pictures, rows

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_elsewhere.py"


@pytest.fixture(scope="module")
def example():
    spec = spec_from_file_location("train_elsewhere", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*command, folder):
    run = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def unpacked(name, folder):
    """What `cat NAME.tar.* | tar x` makes of the pieces, in a folder of its own."""
    folder.mkdir()
    call("sh", "-c", f"cat {name}.tar.* | tar x -C {folder}", folder=folder)
    return folder


@pytest.mark.slow
def test_a_run_goes_elsewhere_and_on_in_pieces(example, tmp_path, capsys):
    make_pictures(tmp_path)
    sizes = {"batch_size": 1, "crop_size": 32, "picture_size": 40, "validation_pairs": 1, "workers": 0}
    often = {"steps": 2, "save_every": 1, "log_every": 1, "validate_every": 2}
    options = {"model": "normalization-network", **sizes, **often}
    (tmp_path / "options.json").write_text(json.dumps(options))
    data = ["--content-data", str(tmp_path / "content"), "--style-data", str(tmp_path / "style")]
    pack = ["pack", *data, "--piece-mb", "10"]
    out = tmp_path / "there" / "out"
    assert example.main([*pack, "--config", str(tmp_path / "options.json"), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    pieces = sorted((tmp_path / "there").iterdir())
    assert len(pieces) >= 3
    assert said.startswith(f"{len(pieces)} pieces")
    assert max(piece.stat().st_size for piece in pieces) == 10_000_000

    there = unpacked(out, tmp_path / "machine")
    train = ["elsewhere/train_elsewhere.py", "train", "--minutes", "5"]
    call(sys.executable, *train, folder=there)
    here = unpacked(there / "result", tmp_path / "here")
    assert [row["step"] for row in rows(here / "run" / "train.csv")] == ["1", "2"]
    load_model(here / "run" / "model.safetensors")
    assert "style_gap" in rows(here / "run" / "validation.csv")[0]
    assert (here / "run" / "log.txt").stat().st_size
    assert [path.name for path in here.glob("run/checkpoint-*")] == ["checkpoint-0000002.pt"]

    (here / "run" / "config.json").write_text(json.dumps(options | {"steps": 3}))
    example.main([*pack, "--go-on", str(here / "run"), "--output", str(tmp_path / "next" / "out")])
    machine = unpacked(tmp_path / "next" / "out", tmp_path / "machine-2")
    call(sys.executable, *train, folder=machine)
    assert [row["step"] for row in rows(machine / "elsewhere" / "run" / "train.csv")] == ["1", "2", "3"]
