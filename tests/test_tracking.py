"""The record of a run, read back from what was written."""

import csv

import pytest
import torch

from arbitrary_nst.image import load_image
from arbitrary_nst.tracking import Tracker


def test_scalars_and_pictures_are_written_under_the_run(tmp_path):
    tracker = Tracker(tmp_path / "run", {}, "off")
    tracker.scalars(10, {"loss": 0.5, "content": 0.25})
    tracker.scalars(20, {"loss": 0.4, "content": 0.125})
    tracker.scalars(20, {"loss": 0.6}, "validation")
    image = torch.rand(3, 8, 8)
    tracker.image(20, "samples", image)
    tracker.close()
    with (tmp_path / "run" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "10", "loss": "0.5", "content": "0.25"},
        {"step": "20", "loss": "0.4", "content": "0.125"},
    ]
    assert (tmp_path / "run" / "validation.csv").read_text().split() == ["step,loss", "20,0.6"]
    written = load_image(tmp_path / "run" / "samples" / "samples-0000020.png")[0]
    assert (written - image).abs().max() <= 0.5 / 255 + 1e-6


@pytest.fixture
def wandb_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def test_weights_and_biases_records_offline_and_a_resumed_run_is_the_same(tmp_path, wandb_offline):
    identities = []
    for _ in range(2):
        tracker = Tracker(tmp_path, {"steps": 3}, "offline")
        assert tracker._wandb is not None
        identities.append(tracker._wandb.id)
        tracker.scalars(1, {"loss": 0.5})
        tracker.close()
    assert identities[0] == identities[1]
    recorded = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert recorded
    assert b"train/loss" in recorded[0].read_bytes()


def test_a_record_that_cannot_be_kept_does_not_stop_training(tmp_path, monkeypatch, caplog):
    import wandb

    def refuse(**options):
        raise OSError("server is away")

    monkeypatch.setattr(wandb, "init", refuse)
    tracker = Tracker(tmp_path, {}, "offline")
    tracker.scalars(1, {"loss": 0.5})
    assert "server is away" in caplog.text
    assert (tmp_path / "train.csv").exists()
