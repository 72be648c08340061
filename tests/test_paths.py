"""Files, folders and patterns: what is found, in which order, and what is said of what gives nothing."""

import errno
import os
import sys
from pathlib import Path

import pytest

from arbitrary_nst.paths import Failures, ImageError, find_images, shown


@pytest.fixture
def tree(tmp_path, monkeypatch):
    names = ["b10.png", "b2.PNG", "B1.jpg", "notes.txt", ".hidden.png", "sub/a.webp", ".git/x.png", "sub/deep/c.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths) -> list[str]:
    return [path.as_posix() for path in find_images(paths)]


def test_a_folder_is_searched_in_natural_order(tree):
    everything = ["B1.jpg", "b2.PNG", "b10.png", "sub/a.webp", "sub/deep/c.gif"]
    assert found(".") == everything
    assert found(tree) == [(tree / name).as_posix() for name in everything]
    assert find_images("sub") == [Path("sub/a.webp"), Path("sub/deep/c.gif")]
    assert find_images([]) == []


def test_order_of_arguments_holds_and_duplicates_go(tree):
    assert found("sub", "b10.png", ".", tree / "b2.PNG") == [
        *("sub/a.webp", "sub/deep/c.gif", "b10.png"),
        *("B1.jpg", "b2.PNG"),
    ]


def test_patterns(tree):
    assert found("b*.[pP][nN][gG]") == ["b2.PNG", "b10.png"]
    assert found("**/*.gif") == ["sub/deep/c.gif"]
    assert found("s?b") == ["sub/a.webp", "sub/deep/c.gif"]
    assert found("*") == found(".")
    assert found(tree / "sub" / "*.webp") == [(tree / "sub" / "a.webp").as_posix()]


def test_a_named_file_is_kept_whatever_its_suffix(tree):
    assert found("notes.txt", ".hidden.png") == ["notes.txt", ".hidden.png"]


def test_an_existing_name_wins_over_the_pattern(tree):
    (tree / "x[12].png").touch()
    (tree / "x1.png").touch()
    (tree / "[sub]").mkdir()
    (tree / "[sub]" / "y.png").touch()
    assert found("x[12].png") == ["x[12].png"]
    assert found("[sub]") == ["[sub]/y.png"]
    (tree / "x[12].png").unlink()
    assert found("x[12].png") == ["x1.png"]


@pytest.mark.parametrize(
    ("path", "matter"),
    [
        ("missing.png", "no such file"),
        ("*.jpeg", "matches"),
        ("*.txt", "matches"),
        ("empty", "no image in this folder"),
        ("", "no such file"),
    ],
)
def test_what_gives_nothing_is_named(tree, path, matter):
    (tree / "empty").mkdir()
    with pytest.raises(ImageError, match=matter) as raised:
        find_images(["b2.PNG", path])
    assert str(raised.value).startswith(path or "''")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_linked_folders_are_followed_once(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.png").touch()
    (tree / "sub" / "linked").symlink_to(elsewhere)
    (tree / "sub" / "loop").symlink_to(tree / "sub")
    assert found("sub") == ["sub/a.webp", "sub/deep/c.gif", "sub/linked/z.png"]


@pytest.mark.parametrize(
    ("thrown", "matter"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "no such file"),
        (OSError(errno.EIO, "Input/output error"), "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_read(tree, monkeypatch, thrown, matter):
    def refused(path):
        raise thrown

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(ImageError, match=matter) as raised:
        find_images(["sub"])
    assert str(raised.value).startswith("sub: ")


def test_a_folder_below_that_cannot_be_read_is_given_itself(tree, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert found("sub") == ["sub/a.webp", "sub/deep"]


def test_failures_are_told_on_one_line_with_their_file_and_counted(capsys):
    failures = Failures()
    failures.add(Path("folder/a.png"), ValueError("too\nsmall"))
    failures.add(Path("folder/b.png"), ImageError("folder/b.png: is no picture"))
    failures.add(Path("c.png"), RuntimeError())
    assert failures.count == 3
    assert capsys.readouterr().err.splitlines() == [
        "failed: folder/a.png: too small",
        "failed: folder/b.png: is no picture",
        "failed: c.png: RuntimeError",
    ]


@pytest.mark.parametrize("name", ["two\nlines.png", os.fsdecode(b"bytes_\xff.png"), "to\u202eleft.png"])
def test_a_name_that_cannot_be_printed_is_told_once_and_escaped(capsys, name):
    failures = Failures()
    failures.add(Path(name), ImageError(f"{shown(name)}: is no picture"))
    failures.add(Path(name), ValueError("too small"))
    assert failures.lines == [f"{name!a}: is no picture", f"{name!a}: too small"]
    assert capsys.readouterr().err.isascii()


def test_want_of_memory_is_told_in_words_and_other_trouble_with_it_is_not():
    failures = Failures()
    failures.add(Path("a.png"), RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory: 9 bytes"))
    failures.add(Path("b.png"), RuntimeError("an illegal memory access was encountered"))
    assert failures.lines == [
        "a.png: out of memory; use a smaller image or free some memory",
        "b.png: an illegal memory access was encountered",
    ]
