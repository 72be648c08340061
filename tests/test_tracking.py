"""The record of a run, read back from what was written."""

import csv
import json

import pytest
import torch

from arbitrary_nst import tracking
from arbitrary_nst.image import load_image
from arbitrary_nst.tracking import Tracker, read_rows


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


def test_a_resumed_record_has_each_step_once(tmp_path):
    tracker = Tracker(tmp_path, {}, "off", step=0)
    for step in (1, 2, 3):
        tracker.scalars(step, {"loss": 1 / step, "content": 0.5})
    with (tmp_path / "train.csv").open("a") as file:
        file.write("4,0.2")  # killed while writing
    tracker = Tracker(tmp_path, {}, "off", step=2)
    tracker.scalars(3, {"content": 0.5, "extra": 1.0, "loss": 0.3})
    assert [(row["step"], row["loss"], row["content"]) for row in read_rows(tmp_path / "train.csv")] == [
        ("1", "1", "0.5"),
        ("2", "0.5", "0.5"),
        ("3", "0.3", "0.5"),
    ]
    Tracker(tmp_path, {}, "off", step=0)
    assert not (tmp_path / "train.csv").exists()


def test_a_silent_tracker_writes_nothing(tmp_path):
    tracker = Tracker(tmp_path / "run", {}, "offline", silent=True)
    tracker.scalars(1, {"loss": 1.0})
    tracker.image(1, "samples", torch.rand(3, 8, 8))
    tracker.keep(lambda: (tmp_path / "plot.png").write_bytes(b""))
    tracker.close()
    assert not list(tmp_path.iterdir())


# Weights & Biases, the real library


@pytest.fixture
def wandb_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home" / name))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)


def records(path):
    """The records of a .wandb file: a LevelDB log of protocol buffers in blocks of 32 KB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def recorded(folder):
    """Ids of the runs, values of the configuration, rows of the history and names of artifacts under a folder."""
    import wandb

    wandb.teardown()  # waits until all is written
    ids, config, history, artifacts = [], {}, [], []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.append(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                row = {item.key or ".".join(item.nested_key): json.loads(item.value_json)
                       for item in record.history.item}  # fmt: skip
                history.append(row)
            elif kind == "request" and record.request.HasField("log_artifact"):
                artifacts.append(record.request.log_artifact.artifact)
            elif kind == "artifact":
                artifacts.append(record.artifact)
    return ids, config, history, artifacts


def test_weights_and_biases_records_all_of_it_offline_and_goes_on_in_the_same_run(tmp_path, wandb_at_home):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model_card.md").write_text("# Model card: light")
    for step in (1, 3):
        tracker = Tracker(tmp_path, {"steps": 4, "versions": {"commit": "abc"}}, "offline", step=step - 1)
        tracker.scalars(step, {"loss": 0.5, "content": 0.25})
        tracker.scalars(step, {"style_gap": 0.125}, "validation")
        tracker.image(step, "samples", torch.rand(3, 8, 8), "content | style | result")
        tracker.model(tmp_path / "model.safetensors", tmp_path / "model_card.md")
        tracker.close()
    ids, config, history, artifacts = recorded(tmp_path)
    assert set(ids) == {(tmp_path / "wandb_id").read_text()}
    assert config["steps"] == 4
    assert config["versions"] == {"commit": "abc"}
    losses = [row for row in history if "train/loss" in row]
    rows = [(row["step"], row["train/loss"], row["train/content"]) for row in losses]
    assert rows == [(1, 0.5, 0.25), (3, 0.5, 0.25)]
    assert [row["validation/style_gap"] for row in history if "validation/style_gap" in row] == [0.125, 0.125]
    samples = [key for row in history for key in row if key.startswith("samples")]
    assert samples
    assert len(artifacts) == 2
    assert artifacts[0].type == "model"
    assert artifacts[0].description == "# Model card: light"
    assert {entry.path for entry in artifacts[0].manifest.contents} == {"model.safetensors", "model_card.md"}


def test_a_server_that_does_not_answer_leaves_an_offline_record(tmp_path, wandb_at_home, monkeypatch, caplog):
    import wandb

    start, modes = wandb.init, []

    def unreachable(mode, **options):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("server is away")  # type: ignore[attr-defined]
        return start(mode=mode, **options)

    monkeypatch.setattr(wandb, "init", unreachable)
    tracker = Tracker(tmp_path, {}, "online")
    tracker.scalars(1, {"loss": 0.5})
    tracker.close()
    assert modes == ["online", "offline"]
    assert "server is away" in caplog.text
    assert [row["train/loss"] for row in recorded(tmp_path)[2] if "train/loss" in row] == [0.5]


def test_nothing_that_the_service_does_stops_a_run(tmp_path, monkeypatch, caplog):
    class Broken:
        def __getattr__(self, name):
            raise ConnectionError("connection lost")

    monkeypatch.setattr(tracking, "_start_wandb", lambda *options: Broken())
    tracker = Tracker(tmp_path, {}, "online")
    for step in (1, 2):
        tracker.scalars(step, {"loss": 0.5})
        tracker.image(step, "samples", torch.rand(3, 8, 8))
    tracker.close()
    assert caplog.text.count("connection lost") == 1
    assert len(read_rows(tmp_path / "train.csv")) == 2


def test_a_record_that_cannot_be_begun_does_not_stop_training(tmp_path, monkeypatch, caplog):
    import wandb

    def refuse(**options):
        raise OSError("server is away")

    monkeypatch.setattr(wandb, "init", refuse)
    tracker = Tracker(tmp_path, {}, "offline")
    tracker.scalars(1, {"loss": 0.5})
    assert "server is away" in caplog.text
    assert (tmp_path / "train.csv").exists()


@pytest.mark.parametrize(
    ("environment", "mode", "expected"),
    [
        ({"WANDB_MODE": "disabled"}, "auto", None),
        ({"WANDB_DISABLED": "true"}, "auto", None),
        ({"WANDB_DISABLED": "1"}, "auto", None),
        ({"WANDB_DISABLED": "false", "WANDB_MODE": "offline"}, "auto", ("offline", "arbitrary_nst", "run")),
        ({"WANDB_MODE": "disabled", "WANDB_PROJECT": "mine"}, "offline", ("offline", "mine", "run")),
        ({"WANDB_MODE": "online", "WANDB_NAME": "seventh"}, "auto", ("online", "arbitrary_nst", "seventh")),
        ({"WANDB_MODE": "online"}, "off", None),
    ],
)
def test_what_the_environment_says_of_the_service_counts(
    tmp_path, wandb_at_home, monkeypatch, environment, mode, expected
):
    import wandb

    class Begun:
        def define_metric(self, *given, **options):
            pass

    begun = []
    monkeypatch.setattr(wandb, "init", lambda **options: begun.append(options) or Begun())
    monkeypatch.setattr(wandb, "login", lambda **options: True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Tracker(tmp_path / "run", {}, mode)
    assert [(options["mode"], options["project"], options["name"]) for options in begun] == [expected] * bool(expected)
