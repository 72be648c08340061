"""Collections: pictures of files, zip files and shards alike; decoded once, kept for all processes or on a device."""

import io
import logging
import os
import pickle
import resource
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import Subset

from arbitrary_nst.data import ImageDataset, PairDataset, Resumable, batches, open_pictures, pictures, train_val_split
from arbitrary_nst.data.sources import Encoded, find_pictures
from arbitrary_nst.image import load_pixels
from arbitrary_nst.runtime.files import ImageError
from runs import forked

PICTURE = 3 * 20 * 30  # bytes of a decoded picture of the fixture


@pytest.fixture
def folder(tmp_path):
    """Four pictures of 20 x 30 random pixels."""
    generator = np.random.default_rng(0)
    for index in range(4):
        path = tmp_path / "photos" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def paths(folder):
    return sorted(folder.iterdir())


@pytest.fixture
def lazy(monkeypatch):
    """No collection is small enough to be decoded when it is opened."""
    monkeypatch.setattr(pictures, "DECODED_AT_ONCE", 0)


class CountingLoad:
    """`Encoded.load` that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, source: Encoded, short_side: int) -> torch.Tensor:
        self.asked.append(source.name)
        return source.load(short_side)


def collection(paths, short_side=20, **options) -> ImageDataset:
    return ImageDataset(find_pictures(paths), short_side, **options)


def everything(found) -> list[torch.Tensor]:
    return [found[index] for index in range(len(found))]


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# Sources


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_files_hold_the_pictures_of_their_folder(folder, paths, compression):
    with zipfile.ZipFile(folder.parent / "photos.zip", "w", compression) as archive:
        archive.writestr("__MACOSX/0.png", b"no picture")
        archive.writestr("photos/.hidden.png", b"no picture")
        archive.writestr("photos/licence.txt", b"no picture")
        for path in reversed(paths):
            archive.write(path, f"photos/{path.name}")
    found = collection([folder.parent / "photos.zip"])
    assert_same(everything(found), [load_pixels(path, 20) for path in paths])
    assert [path.name for path in found.paths] == [path.name for path in paths]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_hold_the_pictures_of_their_folder(folder, paths, tar_format):
    with tarfile.open(folder.parent / "shard.tar", "w", format=tar_format) as archive:
        for index, path in enumerate(paths):
            long = index == 1 and tar_format != tarfile.USTAR_FORMAT
            archive.add(path, f"./{'long' * 40 if long else index}.png")
            archive.addfile(tarfile.TarInfo(f"{index}.json"))
    assert_same(everything(collection([folder.parent / "*.tar"])), [load_pixels(path, 20) for path in paths])


def test_folders_files_and_archives_are_mixed_in_their_order(folder, paths):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(paths[3], "3.png")
    found = collection([paths[2], folder, folder / "a.zip"])
    assert [path.name for path in found.paths] == ["2.png", "0.png", "1.png", "3.png", "3.png"]


def test_archives_that_cannot_be_read_are_refused_by_name(tmp_path, folder, paths):
    (tmp_path / "half.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ImageError, match=r"half\.zip: not a whole archive .*get a complete copy"):
        open_pictures([tmp_path / "half.zip"], 20)
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(ImageError, match=r"none\.zip: no image in this archive"):
        open_pictures([tmp_path / "none.zip"], 20)
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(paths[0], "a.png")
    with pytest.raises(ImageError, match=r"other\.zip/a\.png: encrypted, or compressed .*unpack"):
        find_pictures([tmp_path / "other.zip"])[0].read()


def test_archive_that_is_cut_while_it_is_read_from_names_the_member(tmp_path, paths):
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(paths[0], "a.png")
    (source,) = find_pictures([tmp_path / "shard.tar"])
    os.truncate(tmp_path / "shard.tar", 700)
    with pytest.raises(ImageError, match=r"shard\.tar/a\.png: the archive ends within this picture"):
        source.load(20)


def test_corrupt_member_is_named_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ImageError) as raised:
        find_pictures([tmp_path / "a.zip"])[0].load(20)
    assert str(raised.value).startswith(f"{tmp_path / 'a.zip' / 'a.png'}: the file is")
    assert tempfile.gettempdir() + "/picture-" not in str(raised.value)


# Small collections


def test_pictures_come_in_the_order_of_their_paths(paths):
    assert_same(everything(collection(paths)), [load_pixels(path, 20) for path in paths])


def test_large_pictures_are_shrunk_to_the_short_side_and_small_ones_left(paths):
    assert collection(paths, 10)[0].shape == (3, 10, 15)
    assert collection(paths, 99)[0].shape == (3, 20, 30)


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_first_pictures_are_kept_and_later_ones_decoded_again_to_the_same_pixels(paths, kept):
    load = CountingLoad()
    found = collection(paths, memory=kept * PICTURE, load=load)
    load.asked.clear()
    assert_same(everything(found), [load_pixels(path, 20) for path in paths])
    assert load.asked == [str(path) for path in paths[kept:]]


def test_no_later_picture_is_kept_where_an_earlier_one_did_not_fit(paths):
    Image.new("RGB", (30, 40)).save(paths[1])
    load = CountingLoad()
    found = collection(paths, 99, memory=2 * PICTURE, load=load)  # room for two of the small ones
    load.asked.clear()
    assert [pixels.shape[1] for pixels in everything(found)] == [20, 40, 20, 20]
    assert load.asked == [str(path) for path in paths[1:]]


def test_corrupt_file_is_left_out_counted_and_named_in_the_log(paths, caplog):
    paths[1].write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with caplog.at_level(logging.WARNING):
        found = collection(paths)
    assert found.paths == [paths[0], *paths[2:]]
    assert torch.equal(found[1], load_pixels(paths[2], 20))
    assert len(found.skipped) == 1
    assert str(paths[1]) in caplog.text
    assert "1 of 4" in caplog.text


def test_only_corrupt_files_are_refused(paths):
    for path in paths:
        path.write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"none of the 4 pictures.*png"):
        collection(paths)


def test_collection_ends_with_its_last_picture(paths):
    with pytest.raises(IndexError):
        collection(paths)[4]


# Large collections


def test_large_collection_is_decoded_at_first_use_and_kept(paths, lazy):
    load = CountingLoad()
    found = collection(paths, load=load)
    assert load.asked == []
    assert_same([found[2], found[2], found[0]], [load_pixels(paths[i], 20) for i in (2, 2, 0)])
    assert load.asked == [str(paths[2]), str(paths[0])]


def test_large_collection_keeps_what_comes_first_while_the_memory_lasts(paths, lazy):
    load = CountingLoad()
    found = collection(paths, memory=2 * PICTURE, load=load)
    for index in (3, 1, 0, 2, 3, 1):
        assert torch.equal(found[index], load_pixels(paths[index], 20))
    assert load.asked == [str(paths[i]) for i in (3, 1, 0, 2)]


def test_corrupt_file_of_a_large_collection_is_read_once_and_named_once(paths, lazy, caplog):
    paths[1].write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    load = CountingLoad()
    found = collection(paths, load=load)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"1\.png"):
            found[1]
    assert load.asked == [str(paths[1])]
    assert len(caplog.records) == 1


def test_small_and_large_collections_give_the_same_samples(paths, monkeypatch):
    small = PairDataset(collection(paths), collection(paths), 16)
    monkeypatch.setattr(pictures, "DECODED_AT_ONCE", 0)
    large = PairDataset(collection(paths), collection(paths, memory=PICTURE), 16)
    for index in range(8):
        assert_same(large[index][:2], small[index][:2])


def assert_shared(found: ImageDataset, paths) -> None:
    """Picture 1 was kept by another process, picture 3 found corrupt, and the others were left alone."""
    expected = load_pixels(paths[1], 20)
    for path in paths:
        path.unlink()
    assert torch.equal(found[1], expected)
    with pytest.raises(ImageError, match=r"3\.png: could not be read before"):
        found[3]
    with pytest.raises(ImageError, match=r"0\.png: no such file"):
        found[0]


def touch(found: ImageDataset) -> None:
    found[1]
    with suppress(ImageError):
        found[3]


@pytest.fixture(params=["anonymous", "named"])
def memory_file(request, monkeypatch):
    """The two kinds of file that hold the shared memory."""
    if request.param == "named":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no anonymous files")


def test_forked_processes_share_what_is_kept(paths, lazy, memory_file):
    found = collection(paths)
    paths[3].write_bytes(b"nothing")
    worker = forked(partial(touch, found))
    worker.join()
    assert worker.exitcode == 0
    assert_shared(found, paths)


def test_what_a_spawned_process_is_handed_shares_what_is_kept(paths, lazy, memory_file, monkeypatch):
    found = collection(paths)
    paths[3].write_bytes(b"nothing")
    monkeypatch.setattr("multiprocessing.context.get_spawning_popen", lambda: True)  # locks are pickled only then
    touch(pickle.loads(ForkingPickler.dumps(found)))
    assert_shared(found, paths)


def test_workers_decode_each_picture_once_and_change_no_batch(paths, lazy):
    runs = []
    for workers in (0, 2):
        found = collection(paths)
        loader = batches(PairDataset(found, found, 16), Resumable(0, 6, batch_size=2), workers)
        runs.append(list(loader))
        kept = sum(found._kept.has(place) for place in range(4))
        assert kept == 4
        assert found._kept._table[-1, 0] == found._kept._table[:-1].numel() * 8 + 24 + 4 * PICTURE
    for ours, theirs in zip(*runs, strict=True):
        assert_same(ours, theirs)


# On a device


def test_pictures_kept_on_a_device_give_the_same_samples(paths):
    paths[2].write_bytes(b"nothing")
    usual, resident = collection(paths), collection(paths, device=torch.device("cpu"))
    paths[0].unlink()
    for index in range(6):
        for ours, theirs in zip(
            PairDataset(resident, resident, 16)[index], PairDataset(usual, usual, 16)[index], strict=True
        ):
            assert_close(ours, theirs, atol=1 / 255, rtol=0)
    assert resident.paths == usual.paths


def test_pictures_that_a_device_has_no_room_for_are_refused(paths):
    with pytest.raises(ValueError, match=r"1 of 4 pictures do not fit into .*--memory-gb"):
        collection(paths, device=torch.device("cpu"), memory=3 * PICTURE)


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_only_the_first_process_shows_that_pictures_are_decoded(paths, monkeypatch, capsys, rank, shown):
    monkeypatch.setenv("RANK", rank)
    collection(paths)
    assert ("decoding" in capsys.readouterr().err) == shown


# Held out


@pytest.mark.parametrize(("count", "held"), [(0, 12), (1, 1), (5, 1)])
def test_at_most_a_tenth_is_held_out_and_never_trained_on(folder, paths, count, held):
    twelve = [*paths, *(_copy(paths[0], folder / f"copy{index}.png") for index in range(8))]
    training, held_out, count_held = train_val_split(collection(twelve), count, seed=3)
    assert count_held == (0 if held == 12 else held)
    assert isinstance(training, Subset)
    assert isinstance(held_out, Subset)
    assert len(held_out) == held
    assert sorted({*training.indices, *held_out.indices}) == list(range(12))
    assert held == 12 or not {*training.indices} & {*held_out.indices}


def _copy(source, target):
    target.write_bytes(source.read_bytes())
    return target


# Huge pictures


def test_huge_jpeg_takes_little_memory(tmp_path):
    """It is 600 MB in pixels; an eighth of either side is decoded."""
    with zipfile.ZipFile(tmp_path / "huge.zip", "w") as archive:
        encoded = io.BytesIO()
        Image.new("L", (20000, 10000), 90).save(encoded, "JPEG")
        archive.writestr("huge.jpg", encoded.getvalue())
    with get_context("fork").Pool(1, torch.set_num_threads, (1,)) as pool:
        shape, kilobytes = pool.apply(_load_and_measure, find_pictures([tmp_path / "huge.zip"]))
    assert shape == (3, 256, 512)
    assert kilobytes < 60_000


def _load_and_measure(source: Encoded) -> tuple[tuple[int, ...], int]:
    """The shape, and by how much the process grew at its largest."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shape = tuple(source.load(256).shape)
    return shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
