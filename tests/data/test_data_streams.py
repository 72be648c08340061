"""Streams: shards read from end to end, shared without overlap, the same from one seed, resumed at the very sample."""

import http.server
import io
import logging
import shutil
import tarfile
import threading
from collections import Counter
from functools import partial

import pytest
import torch
from PIL import Image

from arbitrary_nst.data import (
    Augmentation,
    ImageStream,
    PairDataset,
    Resumable,
    batches,
    open_pictures,
    streams,
    train_val_split,
)
from arbitrary_nst.data.streams import is_stream
from arbitrary_nst.runtime.files import ImageError

pytest.importorskip("webdataset")

PLAIN = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0)
COUNT = 24  # pictures in all shards


def write_shard(path, grays, bad=()) -> None:
    """Flat pictures; those in `bad` are no pictures. Beside each lies a text that is none either."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for gray in grays:
            file = io.BytesIO()
            Image.new("L", (8, 8), gray).save(file, "PNG")
            for suffix, content in (("png", b"no picture" if gray in bad else file.getvalue()), ("txt", b"a gray")):
                member = tarfile.TarInfo(f"{gray:03}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """Four shards of six pictures; no two pictures have the same gray."""
    for shard in range(4):
        write_shard(tmp_path / "shards" / f"{shard}.tar", range(6 * shard, 6 * shard + 6))
    return tmp_path / "shards"


def stream(folder, shards="{0..3}", **options) -> ImageStream:
    return ImageStream([f"pipe:cat {folder}/{shards}.tar"], 8, **options)


def grays(loader) -> list[tuple[int, int]]:
    """Of the photo and the painting of every sample."""
    return [
        (round(photo[0, 0, 0].item() * 255), round(painting[0, 0, 0].item() * 255))
        for content, style, _ in loader
        for photo, painting in zip(content, style, strict=True)
    ]


def run(pairs, steps, start=0, rank=0, processes=1, workers=0, batch_size=2) -> list[tuple[int, int]]:
    return grays(batches(pairs, Resumable(start, start + steps, batch_size, rank, processes), workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own(folder, workers):
    pairs = PairDataset(stream(folder), stream(folder), 8, augmentation=PLAIN)
    samples = run(pairs, 24, workers=workers)
    for epoch in (samples[:COUNT], samples[COUNT:]):
        for side in zip(*epoch, strict=True):
            assert sorted(side) == list(range(COUNT))
            assert side != tuple(range(COUNT))
    assert samples[:COUNT] != samples[COUNT:]
    assert sum(photo == painting for photo, painting in samples) < 12  # paired independently


def test_samples_are_those_of_the_seed(folder):
    first, again, other = (
        run(PairDataset(stream(folder), stream(folder), 8, seed, PLAIN), 20, workers=workers)
        for seed, workers in ((1, 0), (1, 1), (2, 0))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(("processes", "workers"), [(4, 0), (2, 2)])
def test_processes_and_workers_share_an_epoch_without_overlap(folder, processes, workers):
    pairs = PairDataset(stream(folder), stream(folder), 8, augmentation=PLAIN)
    steps = COUNT // 2 // processes
    seen = [run(pairs, steps, rank=rank, processes=processes, workers=workers) for rank in range(processes)]
    for side in (0, 1):
        assert Counter(sample[side] for rank in seen for sample in rank) == Counter(range(COUNT))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [1, 5, 31])
def test_resumed_stream_goes_on_at_the_very_sample(folder, start, workers):
    pairs = PairDataset(stream(folder, buffer=5), stream(folder), 8)
    assert run(pairs, 3, start, workers=workers) == run(pairs, start + 3, workers=workers)[2 * start :]


def test_resuming_decodes_nothing_that_it_passes_over_and_reads_two_epochs_at_most(folder, monkeypatch):
    opened, decoded = [], []
    members, load = streams._members, streams.load_pixels
    monkeypatch.setattr(streams, "_members", lambda urls: opened.append(list(urls)) or members(urls))
    monkeypatch.setattr(streams, "load_pixels", lambda *given, **more: decoded.append(given) or load(*given, **more))
    run(PairDataset(stream(folder), stream(folder), 8, augmentation=PLAIN), 2, start=120)  # ten epochs
    assert len(decoded) == 8
    assert len(opened) == 4


@pytest.mark.parametrize("start", [0, 3, 10])
def test_corrupt_picture_is_replaced_by_the_next_and_counted(folder, caplog, start):
    bad = {3, 7, 8, 20}
    for shard in range(4):
        write_shard(folder / f"{shard}.tar", range(6 * shard, 6 * shard + 6), bad)
    photos = [torch.full((3, 8, 8), 99, dtype=torch.uint8)]
    pairs = PairDataset(stream(folder), photos, 8, augmentation=PLAIN)
    with caplog.at_level(logging.WARNING):
        loader = batches(pairs, Resumable(0, 12, batch_size=2), 0)
        samples = grays(loader)
    assert {photo for photo, _ in samples} == set(range(COUNT)) - bad
    assert loader.skipped == 4
    assert len(caplog.records) == 4
    assert "007.png: not an image" in caplog.text
    assert run(pairs, 12 - start, start) == samples[2 * start :]


@pytest.mark.parametrize("workers", [0, 1])
def test_where_everything_is_corrupt_the_run_stops_and_says_so(folder, workers, monkeypatch):
    monkeypatch.setattr(streams, "UNREADABLE_IN_A_ROW", 30)
    for shard in range(4):
        write_shard(folder / f"{shard}.tar", range(6), range(6))
    pairs = PairDataset(stream(folder), stream(folder), 8)
    with pytest.raises(ImageError, match=r"^30 pictures in a row cannot be read; are these shards of pictures\?$"):
        run(pairs, 2, workers=workers)


def test_shard_that_cannot_be_read_is_named_and_the_others_go_on(folder, caplog):
    (folder / "2.tar").unlink()
    with caplog.at_level(logging.WARNING):
        samples = run(PairDataset(stream(folder), stream(folder), 8, augmentation=PLAIN), 9)
    assert {photo for photo, _ in samples} == {*range(12), *range(18, 24)}
    assert "2.tar" in caplog.text
    shutil.rmtree(folder)
    with pytest.raises(ImageError, match=r"no picture can be read in this or the other 3 shards"):
        run(PairDataset(stream(folder), stream(folder), 8), 1)


def test_more_workers_than_shards_are_refused(folder):
    pairs = PairDataset(stream(folder), stream(folder), 8)
    with pytest.raises(ValueError, match=r"4 shards cannot be dealt to 6 workers: lower --workers"):
        batches(pairs, Resumable(0, 1, 1, processes=2), 3)


def test_photos_are_streamed_for_paintings_on_a_disk(folder):
    paintings = [torch.full((3, 8, 8), 100 + place, dtype=torch.uint8) for place in range(3)]
    pairs = PairDataset(stream(folder), paintings, 8, augmentation=PLAIN, numbers=[5, 6, 7])
    for content, style, number in batches(pairs, Resumable(0, 6, batch_size=2), 0):
        assert content.max() * 255 < COUNT
        assert torch.equal((style[:, 0, 0, 0] * 255).round().int() - 95, number.int())


def test_streams_are_read_over_http(folder):
    if shutil.which("curl") is None:
        pytest.skip("webdataset reads http with curl, which is not installed")
    handler = partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{{0..3}}.tar"
        pairs = PairDataset(ImageStream([url], 8), ImageStream([url], 8), 8, augmentation=PLAIN)
        samples = run(pairs, 12)
        server.shutdown()
    assert sorted(photo for photo, _ in samples) == list(range(COUNT))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args) -> None:
        pass


# Opening


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("http://host/a.tar", True),
        ("s3://bucket/{000..117}.tar", True),
        ("pipe:cat a.tar", True),
        ("photos", False),
        ("/data/photos/*.jpg", False),
        (r"C:\photos", False),
        ("C:/photos", False),
    ],
)
def test_addresses_and_commands_are_told_from_files(path, expected):
    assert is_stream(path) == expected


def test_braces_name_a_shard_each_and_object_stores_are_read_by_their_commands():
    given = ["https://host/{1..2}.tar", "pipe:aws s3 cp s3://bucket/a.tar -", "s3://bucket/a b.tar"]
    assert ImageStream(given, 8).urls == [
        "https://host/1.tar",
        "https://host/2.tar",
        "pipe:aws s3 cp s3://bucket/a.tar -",
        "pipe:aws s3 cp 's3://bucket/a b.tar' -",
    ]


def test_streams_and_files_cannot_be_mixed_nor_kept_on_a_device(folder):
    with pytest.raises(ValueError, match=r"http://host/a\.tar: addresses and local files cannot be mixed"):
        open_pictures(["http://host/a.tar", folder], 8)
    with pytest.raises(ValueError, match=r"a stream cannot be kept on cpu"):
        open_pictures(["http://host/a.tar"], 8, device=torch.device("cpu"))


def test_last_shard_of_many_is_held_out(tmp_path):
    for shard in range(10):
        write_shard(tmp_path / f"{shard}.tar", [2 * shard, 2 * shard + 1])
    training, held_out, count = train_val_split(stream(tmp_path, "{0..9}"), count=1, seed=0)
    assert isinstance(held_out, list)
    assert count == 1
    assert [pixels.max() for pixels in held_out] == [18]
    samples = run(PairDataset(training, training, 8, augmentation=PLAIN), 9)
    assert {photo for photo, _ in samples} == set(range(18))


def test_of_few_shards_none_is_held_out(folder):
    training, held_out, count = train_val_split(stream(folder), count=3, seed=0)
    assert count == 0
    assert isinstance(training, ImageStream)
    assert isinstance(held_out, list)
    assert len(training.urls) == 4
    assert [pixels.max() for pixels in held_out] == [0, 1, 2]
