"""Shards of a collection: what is dropped stands in the report, and a run that was stopped ends with the same files."""

import csv
import hashlib
import io
import json
import os
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arbitrary_nst.commands import main
from arbitrary_nst.commands import prepare as preparation
from arbitrary_nst.data import ImageDataset, open_pictures
from arbitrary_nst.data.sources import Encoded
from runs import forked


def encoded(seed: int, width: int = 60, height: int = 40, **options) -> bytes:
    """A JPEG of blurred noise, so that it survives being encoded again."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.fixture
def sources(tmp_path):
    """A folder with seven good pictures, four bad ones and a duplicate, and a zip file with two, one of them good."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(7):
        (folder / f"{index}.jpg").write_bytes(encoded(index))
    (folder / "2 corrupt.jpg").write_bytes(encoded(2)[:200])
    (folder / "3 empty.jpg").write_bytes(b"")
    (folder / "4 small.jpg").write_bytes(encoded(20, 60, 15))
    (folder / "5 again.jpg").write_bytes(encoded(1))
    (folder / "6 other camera.jpg").write_bytes(encoded(2, comment=b"other bytes, the same pixels"))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("Café Müller.jpg", encoded(30))
        archive.writestr("corrupt.jpg", b"\xff\xd8\xff nothing")
    return folder, tmp_path / "more.zip"


@pytest.fixture
def prepare(sources, tmp_path):
    """The command on these sources; returns its exit code."""

    def run(*options, output=tmp_path / "out") -> int:
        common = ("--size", "30", "--min-side", "20", "--shard-size", "3", "--workers", "0")
        return main(["prepare", *map(str, sources), "--output", str(output), *common, *options])

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_good_pictures_are_shrunk_into_shards_in_their_order(prepare, tmp_path):
    assert prepare() == 0
    assert sorted(content(tmp_path / "out")) == [
        "manifest.json",
        "report.csv",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
    found = open_pictures([tmp_path / "out"], 99)
    assert isinstance(found, ImageDataset)
    assert [path.name for path in found.paths][:3] == ["000000000-0.jpg", "000000001-1.jpg", "000000003-2.jpg"]
    assert found.paths[-1].name == "000000012-Cafe-Muller.jpg"
    assert len(found) == 8
    for index, seed in ((0, 0), (1, 1), (7, 30)):
        expected = np.asarray(Image.open(io.BytesIO(encoded(seed))).resize((45, 30), Image.Resampling.BICUBIC))
        assert np.abs(found[index].permute(1, 2, 0).numpy().astype(int) - expected).mean() < 6


def test_dropped_files_stand_in_the_report_with_the_reason(prepare, sources, tmp_path, capsys):
    prepare()
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["file"]).name, row["reason"]) for row in rows] == [
        ("2 corrupt.jpg", "unreadable"),
        ("3 empty.jpg", "unreadable"),
        ("4 small.jpg", "small"),
        ("5 again.jpg", "duplicate"),
        ("6 other camera.jpg", "duplicate"),
        ("corrupt.jpg", "unreadable"),
    ]
    assert "truncated" in rows[0]["detail"]
    assert rows[2]["detail"] == "60 x 15 pixels"
    assert rows[3]["detail"] == f"the same picture as {sources[0] / '1.jpg'}"
    assert rows[4]["detail"] == f"the same picture as {sources[0] / '2.jpg'}"
    said = capsys.readouterr().out
    assert "8 of 14 pictures in 3 shards" in said
    assert "2 duplicate, 1 small, 3 unreadable" in said


def test_manifest_tells_what_the_shards_are(prepare, tmp_path):
    prepare("--license", "CC BY 4.0")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"]["license"] == "CC BY 4.0"
    assert manifest["pictures"] == sum(shard["count"] for shard in manifest["shards"]) == 8
    assert [shard["count"] for shard in manifest["shards"]] == [3, 3, 2]
    for shard in manifest["shards"]:
        written = (tmp_path / "out" / shard["name"]).read_bytes()
        assert hashlib.sha256(written).hexdigest() == shard["sha256"]
        assert len(written) == shard["bytes"]


def test_shards_are_read_by_webdataset(prepare, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    prepare()
    shards = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"][:9] for sample in samples][:3] == ["000000000", "000000001", "000000003"]
    assert all(Image.open(io.BytesIO(sample["jpg"])).size == (45, 30) for sample in samples)


def test_number_of_processes_changes_no_file(prepare, tmp_path):
    prepare()
    prepare("--workers", "1", output=tmp_path / "other")
    assert content(tmp_path / "other") == content(tmp_path / "out")


def test_a_process_that_is_killed_is_told_in_a_line(prepare, monkeypatch, capsys):
    monkeypatch.setattr(Encoded, "load", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
    assert prepare("--workers", "1") == 1
    said = capsys.readouterr().err
    assert "Killed" in said
    assert "--workers" in said


def test_as_many_processes_decode_as_there_are_cores_but_four_at_most(monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(preparation, "usable_cores", lambda cores=cores: cores)
        assert preparation.PrepareConfig(sources=(), output=Path("out")).workers == expected


@pytest.mark.parametrize("stop_at", [0, 3, 4, 11, 13])
def test_run_that_was_stopped_goes_on_and_ends_with_the_same_files(prepare, tmp_path, monkeypatch, stop_at):
    prepare(output=tmp_path / "whole")
    asked = []

    def stopping(source, *options):
        asked.append(source)
        if len(asked) > stop_at:
            raise KeyboardInterrupt
        return load(source, *options)

    load = Encoded.load
    monkeypatch.setattr(Encoded, "load", stopping)
    assert prepare() == 130
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "out" / ".0123.partial").write_bytes(b"half a shard of a killed run")
    monkeypatch.setattr(Encoded, "load", load)
    assert prepare() == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_going_on_decodes_no_finished_shard_again(prepare, monkeypatch):
    finish = preparation.finish
    monkeypatch.setattr(preparation, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert prepare() == 130
    monkeypatch.setattr(preparation, "finish", finish)
    monkeypatch.setattr(Encoded, "load", None)
    assert prepare() == 0
    assert prepare() == 0  # nor that of a finished folder


@pytest.mark.slow
def test_killed_run_goes_on_and_ends_with_the_same_files(prepare, tmp_path, monkeypatch):
    prepare(output=tmp_path / "whole")

    def slowly(source, *options):
        time.sleep(0.05)
        return load(source, *options)

    load = Encoded.load
    monkeypatch.setattr(Encoded, "load", slowly)
    run = forked(prepare)
    while run.is_alive() and not list((tmp_path / "out").glob("*.tar")):
        time.sleep(0.005)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert list((tmp_path / "out").glob("*.tar"))
    assert prepare() == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("--size", "40"), r"made with --size 30, not 40; name another folder"),
        (("--license", "CC0"), r"made with --license '', not 'CC0'"),
    ],
)
def test_folder_of_other_options_is_refused(prepare, monkeypatch, capsys, changed, told, finished):
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(preparation, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        prepare()
    assert prepare(*changed) == 2
    assert told in capsys.readouterr().err


def test_folder_of_changed_sources_or_of_something_else_is_refused(prepare, sources, tmp_path, capsys):
    prepare()
    (sources[0] / "new.jpg").write_bytes(encoded(50))
    assert prepare() == 2
    assert "the files of its sources have changed" in capsys.readouterr().err
    assert prepare(output=sources[0]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert not (sources[0] / "manifest.json").exists()


def test_where_nothing_is_kept_it_says_so(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"nothing")
    assert main(["prepare", str(tmp_path / "bad"), "--output", str(tmp_path / "out"), "--workers", "0"]) == 1
    assert "none of the 1 files gave a picture" in capsys.readouterr().err
    assert "a.jpg,unreadable" in (tmp_path / "out" / "report.csv").read_text()


@pytest.mark.parametrize(
    "options", [("--min-side", "40"), ("--quality", "0"), ("--shard-size", "0"), ("--size", "0"), ("--workers", "-1")]
)
def test_impossible_options_are_refused_by_name(prepare, capsys, options):
    assert prepare(*options) == 2
    assert options[0] in capsys.readouterr().err


def test_shards_hold_nothing_of_the_machine(prepare, tmp_path):
    prepare()
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as archive:
        for member in archive:
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)


def test_shards_in_the_folder_of_the_sources_are_no_sources(sources, tmp_path, capsys):
    common = ["--workers", "0", "--size", "30", "--min-side", "20"]
    output = sources[0] / "shards"
    for _ in range(2):
        assert main(["prepare", str(sources[0]), "--output", str(output), *common]) == 0
        assert "of 12 pictures" in capsys.readouterr().out
    assert main(["prepare", str(output), "--output", str(output), *common]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["file", "file/out", "shards.tar", "coco.zip"])
def test_where_nothing_can_be_written_is_said_before_sources_are_looked_for(tmp_path, monkeypatch, output, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(preparation, "find_pictures", lambda paths: pytest.fail("work has begun"))
    assert main(["prepare", str(tmp_path), "--output", str(tmp_path / output)]) == 2
    assert f"--output {tmp_path / output}" in capsys.readouterr().err
