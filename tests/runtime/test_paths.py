"""Files, folders and patterns: what is found, in which order, and what is said of what gives nothing."""

import errno
import os
import sys
from pathlib import Path

import pytest

from arbitrary_nst.errors import OutputError, UsageError
from arbitrary_nst.runtime import files as paths
from arbitrary_nst.runtime.files import (
    LONGEST_NAME,
    Failures,
    ImageError,
    check_output_folder,
    check_writable,
    counted,
    find_images,
    find_places,
    fitting_name,
    printable_path,
    refuse_overwriting,
    result_names,
    unique_names,
)


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


def test_a_file_is_given_as_often_as_it_is_named_where_places_count(tree):
    names = ["b2.PNG", "sub", tree / "b2.PNG", "sub/../b2.PNG", "B1.jpg"]
    images = find_images(names, repeated=True)
    assert [path.as_posix() for path in images] == [
        *("b2.PNG", "sub/a.webp", "sub/deep/c.gif"),
        *("b2.PNG", "b2.PNG", "B1.jpg"),
    ]
    assert find_images(names) == list(dict.fromkeys(images))


def test_every_suffix_that_is_read_is_found(tmp_path):
    suffixes = (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".avif", ".HEIC", ".heif")
    for suffix in suffixes:
        (tmp_path / f"a{suffix}").touch()
    pytest.importorskip("pillow_heif")
    assert {path.suffix for path in find_images([tmp_path])} == set(suffixes)


def test_what_is_left_out_is_counted_and_named(tree, capsys):
    for name in ("a.dng", "b.DNG", "sub/c.psd", "d.xmp", ".e.dng"):
        (tree / name).touch()
    assert found(".") == ["B1.jpg", "b2.PNG", "b10.png", "sub/a.webp", "sub/deep/c.gif"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(".: ")
    assert "2 .dng, 1 .psd" in said[0]
    assert found("sub/*") == ["sub/a.webp", "sub/deep/c.gif"]
    assert "1 .psd" in capsys.readouterr().err
    assert found("a.dng") == ["a.dng"]
    assert capsys.readouterr().err == ""
    with pytest.raises(ImageError, match=r"1 \.dng"):
        find_images("a.dn[g]")


def test_heic_that_cannot_be_read_names_its_package(tree, monkeypatch, capsys):
    readable = tuple(suffix for suffix in paths.SUFFIXES if paths.FORMATS[suffix] != "HEIF")
    monkeypatch.setattr(paths, "LEFT_OUT", {*paths.LEFT_OUT, ".heic"})
    (tree / "a.heic").touch()
    assert Path("a.heic") not in find_images(".", readable)
    said = capsys.readouterr().err
    assert "1 .heic" in said
    assert "arbitrary_nst[heif]" in said


def photos(path, results, *, of=".") -> list[str]:
    """What is found there, below another folder, by somebody whose results lie in these places."""
    return [file.relative_to(of).as_posix() for file in find_images([path], results=results)]


def test_a_search_leaves_results_of_earlier_runs_out(tree, capsys):
    everything = ["B1.jpg", "b2.PNG", "b10.png"]
    for path in (".", "**/*", "*"):
        assert photos(path, {Path("sub"): ""}) == everything
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert photos(tree, {Path("sub"): ""}, of=tree) == everything
    assert photos(".", {tree / "b2.PNG": "", Path("new"): ""}) == ["B1.jpg", "b10.png", "sub/a.webp", "sub/deep/c.gif"]
    (tree / "link").symlink_to(tree / "sub")
    assert photos(".", {Path("link"): ""}) == everything
    with pytest.raises(ImageError, match=r"\.webp"):
        photos("*/*", {Path("sub"): ""})


def test_results_that_are_named_are_found(tree):
    results = {Path("sub"): "c*"}
    assert photos("sub", results) == ["sub/a.webp"]  # it holds both
    assert photos("sub/deep", results) == photos("sub/deep/*", results) == ["sub/deep/c.gif"]
    assert photos("sub/deep/c.gif", results) == ["sub/deep/c.gif"]


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


# Names of results


def places(*paths) -> list[str]:
    return [place.as_posix() for place in find_places(paths).values()]


def test_a_place_is_the_path_below_what_was_named(tree):
    everything = ["B1.jpg", "b2.PNG", "b10.png", "sub/a.webp", "sub/deep/c.gif"]
    assert places(".") == places(tree) == places(f"{tree}/") == places("sub/..") == everything
    assert places("sub") == places("sub/*") == ["a.webp", "deep/c.gif"]
    assert places("sub/deep/c.gif", tree / "b10.png") == ["c.gif", "b10.png"]
    assert places("*/*/*.gif") == places(tree / "*" / "deep") == ["sub/deep/c.gif"]
    assert places("*/../b10.png") == ["b10.png"]
    assert places("sub", ".") == ["a.webp", "deep/c.gif", "B1.jpg", "b2.PNG", "b10.png"]


def named(*files: str) -> list[str]:
    return list(result_names({Path("some", file): Path(file) for file in files}).values())


def test_names_of_results_depend_on_nothing_else():
    files = ["b.png", "b.jpg", "b.jpeg", "sub/b.png", "sub/b.jpg", "c.v2.JPG", "gallery"]
    expected = ["b-png", "b", "b-jpeg", "sub/b-png", "sub/b", "c.v2", "gallery"]
    assert named(*files) == expected
    assert [name for file in files for name in named(file)] == expected


def test_names_of_results_hold_no_separator():
    assert named("a_stylized_b.jpg", "x/a_Stylized.png") == ["a-stylized_b", "x/a-Stylized-png"]


@pytest.mark.parametrize(
    "files",
    [
        ("b.jpg", "b.JPG"),
        ("b.png", "B.png", "b-png.jpg"),
        ("b.jpg", "b"),
        ("stra\u00dfe.jpg", "STRASSE.jpg"),
        ("e\u0301.jpg", "\u00e9.jpg"),
        ("a_stylized.jpg", "a-stylized.jpg"),
        (os.fsdecode(b"\xff.jpg"), os.fsdecode(b"\xff.JPG")),
    ],
)
def test_names_that_would_be_one_on_some_disk_are_told_apart_in_any_order(files):
    names = named(*files, "other.jpg")
    assert len({name.casefold() for name in names}) == len(files) + 1
    assert names[-1] == "other"
    assert named("other.jpg", *reversed(files)) == names[::-1]


@pytest.mark.parametrize(
    "name_all", [unique_names, lambda files: result_names({file: Path(file.name) for file in files})]
)
def test_files_of_one_name_have_names_of_their_own_however_they_are_spelled(tree, name_all):
    files = [Path("sub/x.png"), Path("x.png"), Path("X.PNG"), Path("b2.PNG")]
    for file in files:
        file.touch()
    (tree / "linked").symlink_to(tree / "sub")
    spellings = [
        files,
        [tree / file for file in files],
        [Path("linked/x.png"), *(Path("sub/..") / f for f in files[1:])],
    ]
    first, *others = [list(name_all(spelling).values()) for spelling in spellings]
    assert others == [first, first]
    assert len({name.casefold() for name in first}) == 4
    assert list(name_all(files[::-1]).values()) == first[::-1]
    (tree / "sub" / "y.png").touch()
    assert list(name_all([Path("sub/y.png"), *files]).values())[1:] == first
    assert list(name_all([files[0], files[1]]).values()) == first[:2]


def test_a_stem_is_a_name_of_its_own():
    paths = [Path("a/photo.jpg"), Path("b/other.png"), Path("b/photo-2.png")]
    assert list(unique_names(paths).values()) == ["photo", "other", "photo-2"]


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U0001f3a8", os.fsdecode(b"\xff")])
def test_a_name_too_long_for_a_disk_is_cut_and_stays_unique(letter, tmp_path):
    assert fitting_name(letter * 20, ".png") == letter * 20 + ".png"
    names = [fitting_name(letter * 300 + ending, ".jpeg") for ending in "xy"]
    assert names[0] != names[1]
    for name in names:
        assert name.startswith(letter * 3) or not letter.isprintable()
        assert LONGEST_NAME - 4 <= len(os.fsencode(name)) <= LONGEST_NAME or not letter.isprintable()
        (tmp_path / name).touch()


def test_one_is_no_plural():
    assert [counted(count, "picture") for count in range(3)] == ["0 pictures", "1 picture", "2 pictures"]


def test_what_is_read_is_not_written(tree):
    inputs = [Path("b2.PNG"), Path("missing.png"), Path("sub/a.webp")]
    refuse_overwriting(inputs, [Path("new.png"), Path("b10.png"), Path("missing.png"), Path("none/at/all.png")])
    (tree / "hard.png").hardlink_to(tree / "b2.PNG")
    names = ["b2.PNG", "./b2.PNG", "sub/../b2.PNG", tree / "b2.PNG", "hard.png"]
    if sys.platform != "win32":  # symbolic links need rights there
        (tree / "link.png").symlink_to("b2.PNG")
        (tree / "folder").symlink_to("sub")
        names += ["link.png", "folder/../b2.PNG"]
    for name in names:
        with pytest.raises(ValueError, match=r"b2\.PNG"):
            refuse_overwriting(inputs, [Path("new.png"), Path(name)])


# Outputs


@pytest.mark.parametrize("output", ["new", "new/folder", "sub", "sub/new", "out.v2", "2024.05.01"])
def test_a_folder_for_results_is_looked_at_and_not_made(tree, output):
    before = sorted(tree.rglob("*"))
    check_output_folder(Path(output))
    check_writable(Path(output) / "result.png")
    assert sorted(tree.rglob("*")) == before


@pytest.mark.parametrize(
    "output", ["b2.PNG", "b2.PNG/below", "new.png", "new/x.avif", "a.style", "model.onnx", "clip.mp4", "table.csv"]
)
def test_a_file_is_no_folder_for_results(tree, output):
    with pytest.raises(UsageError, match=f"^--sheets {output}: "):
        check_output_folder(Path(output), "sheets")


def test_a_folder_that_is_called_as_a_file_is_a_folder_once_it_is_there(tree):
    (tree / "new.png").mkdir()
    check_output_folder(Path("new.png"))
    with pytest.raises(OutputError, match=r"^new\.png: "):
        check_writable(Path("new.png"))


@pytest.mark.parametrize("output", ["b2.PNG/new.png", "sub", f"{'x' * 300}.png", f"new/{'x' * 300}.png"])
def test_a_file_that_cannot_be_written_is_named(tree, output):
    if output.startswith("new/"):
        (tree / "new").mkdir()
    with pytest.raises(OutputError, match=output):
        check_writable(Path(output))


def test_a_folder_whose_name_is_too_long_is_refused(tree):
    with pytest.raises(OutputError, match="xxx"):
        check_output_folder(Path("x" * 300))


def test_where_nothing_may_be_written_is_found_by_trying(tree, monkeypatch):
    def refused(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(paths.tempfile, "TemporaryFile", refused)
    for check in (check_output_folder, check_writable):
        with pytest.raises(OutputError, match=r"^new: .*Read-only"):
            check(Path("new"))


# Failures


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
    failures.add(Path(name), ImageError(f"{printable_path(name)}: is no picture"))
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
