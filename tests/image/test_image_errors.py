"""Whatever is wrong with a file, one clear line says it."""

import builtins
import errno
import os
import struct
import sys
import warnings
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import PngImagePlugin

from arbitrary_nst.image import load_image, load_picture, load_pixels, save_image
from arbitrary_nst.runtime.files import WRITTEN_SUFFIXES, ImageError
from pictures import message, png, ramps


def test_each_reading_error_names_the_file_and_the_matter(tmp_path):
    save_image(torch.rand(3, 64, 64), tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("This is no image at all, whatever its name says.")
    (tmp_path / "short.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "header.png").write_bytes(good[:20])
    (tmp_path / "zero.png").write_bytes(png(8, 0, [b"\0"]).replace(struct.pack(">II", 1, 1), bytes(8), 1))
    (tmp_path / "folder.png").mkdir()
    expected = {
        "missing.png": "no such file",
        "empty.png": "empty",
        "text.png": "not an image",
        "short.png": "truncated",
        "header.png": "truncated",
        "zero.png": "damaged",
        "folder.png": "is a folder",
        "good.png/below.png": "a file is where a folder should be",
    }
    for name, matter in expected.items():
        for line in (message(tmp_path / name), message(tmp_path / name, load_pixels, short_side=8)):
            assert line.startswith(f"{tmp_path / name}: ")
            assert matter in line
            assert ";" in line  # what to do
    assert "\\n" in message(tmp_path / "line\nbreak.png")
    assert "\\x00" in message("nul\0.png")


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_never_half_a_picture(tmp_path, suffix, kept):
    save_image(torch.rand(3, 64, 64), tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: int(len(content) * kept)])
    line = message(tmp_path / f"cut{suffix}")
    assert "truncated" in line or "damaged" in line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(WRITTEN_SUFFIXES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_gives_an_image_or_an_image_error(tmp_path, suffix, changes):
    path = tmp_path / f"a{suffix}"
    if not path.exists():
        save_image(ramps(), path, alpha=ramps()[0, 0])
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place**2 * len(content))] = value  # mostly in the header
    (tmp_path / "damaged").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rgb, failure = load_image(tmp_path / "damaged", max_pixels=10_000), ""
        except ImageError as error:
            rgb, failure = torch.zeros(1, 3, 1, 1), str(error)
    assert failure == "" or failure.startswith(str(tmp_path / "damaged"))
    assert rgb.min() >= 0
    assert rgb.max() <= 1


@pytest.mark.parametrize(
    "thrown",
    [
        OSError("broken"),
        SyntaxError("x"),
        struct.error("x"),
        EOFError(),
        IndexError("x"),
        KeyError("x"),
        TypeError("x"),
        OverflowError("x"),
        zlib.error("x"),
        RuntimeError("x"),
        RecursionError("x"),
        SystemError("x"),
    ],
)
def test_whatever_pillow_throws_becomes_an_image_error(tmp_path, monkeypatch, thrown):
    save_image(ramps(), tmp_path / "a.png")

    def load(self):
        raise thrown

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert "damaged" in message(tmp_path / "a.png")


def test_memory_and_interruption(tmp_path, monkeypatch):
    save_image(ramps(), tmp_path / "a.png")
    for thrown in (MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")):

        def load(self, thrown=thrown):
            raise thrown

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
        assert "out of memory" in message(tmp_path / "a.png")

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_picture(tmp_path / "a.png")


def test_permission_denied_is_said(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(builtins, "open", refused)
    line = message(tmp_path / "a.png")
    assert line.startswith(f"{tmp_path / 'a.png'}: permission denied")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that bind")
def test_files_and_folders_without_permission(tmp_path):
    save_image(ramps(), tmp_path / "closed" / "a.png")
    (tmp_path / "closed" / "a.png").chmod(0)
    assert "permission denied" in message(tmp_path / "closed" / "a.png")
    (tmp_path / "closed").chmod(0o500)
    with pytest.raises(ImageError, match="permission denied"):
        save_image(ramps(), tmp_path / "closed" / "b.png")
    (tmp_path / "closed").chmod(0o700)
