"""Hundreds of broken, hostile and odd files: each a picture or one line that names it, alone and in a batch."""

import faulthandler
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from arbitrary_nst.image import load_picture, load_pixel_picture, load_pixels, reading
from arbitrary_nst.runtime.files import ImageError, find_places, fitting_name, printable_path, result_names
from hostile import corpus, write_corpus

pytestmark = pytest.mark.slow

SECONDS = 60
"""In which a single file is done, many times over, on any machine."""

MEMORY = 2**30
"""Bytes of address space that reading may take beyond what the process had before."""


# In a process of its own


def look_at_all(folder: Path) -> None:
    """Read every file below a folder and print a line on each, as JSON; the last line is the growth in bytes."""
    import resource

    reading.PIPE_TIMEOUT = 0.05
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(folder.glob("*/*")):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(json.dumps({"path": str(path), **look_at(path)}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))


def look_at(path: Path) -> dict[str, object]:
    """What each function makes of a file: the size of the picture, or the message; what must not be is an exception."""
    found: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found["strict"] = outcome(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["picture"] = outcome(path)
        for name, load in {"pixels": load_pixel_picture, "small": lambda path: load_pixels(path, 8)}.items():
            try:
                pixels = load(path)
                pixels = pixels if isinstance(pixels, torch.Tensor) else pixels.rgb
                assert pixels.dtype == torch.uint8
                found[name] = list(pixels.shape[1:])
            except ImageError as error:
                found[name] = str(error)
    return found


def outcome(path: Path) -> list[int] | str:
    try:
        picture = load_picture(path)
    except ImageError as error:
        return str(error)
    for channels in (picture.rgb, picture.alpha):
        if channels is not None:
            assert channels.isfinite().all(), path
            assert channels.min() >= 0, path
            assert channels.max() <= 1, path
            assert channels.shape[2:] == picture.rgb.shape[2:]
    return list(picture.rgb.shape[2:])


# The tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    write_corpus(path)
    return path


@pytest.fixture(scope="module")
def looked_at(folder) -> tuple[dict[Path, dict], int]:
    """What was found of every file, and by how many bytes the process grew."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to limit the memory")
    command = [sys.executable, __file__, folder]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests")))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-3000:]}"
    return {Path(line["path"]): line for line in lines[:-1]}, lines[-1]


@pytest.fixture(scope="module")
def found(looked_at) -> dict[Path, dict]:
    return looked_at[0]


def test_the_corpus_is_large_in_number_small_on_disk_and_the_same_again():
    files = corpus()
    assert len(set(files.values())) >= 600
    assert sum(map(len, files.values())) < 4_000_000
    assert corpus() == files
    assert corpus(1) != files


def test_every_file_was_looked_at(folder, found):
    assert len(found) == sum(1 for _ in folder.glob("*/*")) >= 600


def test_a_refusal_is_one_line_that_names_the_file_and_says_what_to_do(found):
    for path, each in found.items():
        for message in (each[name] for name in ("picture", "strict", "pixels", "small")):
            if isinstance(message, str):
                assert message.startswith(f"{printable_path(path)}: ")
                assert message.isprintable()
                assert ";" in message
                assert "out of memory" not in message


def test_all_functions_agree(found):
    for path, each in found.items():
        if isinstance(each["picture"], str):
            assert each["picture"] == each["pixels"] == each["small"], path
        else:
            assert each["pixels"] == each["picture"], path
            assert min(each["small"]) == min(8, *each["picture"]), path


def test_what_is_sound_is_read_and_what_is_broken_is_not(found):
    read = {path for path, each in found.items() if not isinstance(each["picture"], str)}
    assert {path for path in found if path.parent.name == "sound"} - read == set()
    assert {path for path in found if path.parent.name in ("broken", "special")} & read == set()
    assert found[next(path for path in read if path.name == "high.png")]["picture"] == [65535, 1]
    assert found[next(path for path in read if path.name == "orientation_6.jpg")]["picture"] == [26, 18]


def test_what_claims_to_be_enormous_is_refused_by_its_header(found):
    claims = [each["picture"] for path, each in found.items() if path.name.startswith("claims_") and "x" in path.name]
    assert len(claims) >= 12
    assert sum("raise --max-pixels" in message for message in claims) >= 10


@pytest.mark.parametrize(
    ("name", "matter"),
    [
        ("dangling.jpg", "no such file"),
        ("itself.jpg", "cannot be read"),
        ("folder.jpg", "is a folder"),
        ("null.png", "is a device"),
        ("zero.png", "is a device"),
        ("pipe.png", "nothing came through this pipe"),
        ("socket.png", "cannot be read"),
    ],
)
def test_what_is_no_file_is_told_as_what_it_is(folder, found, name, matter):
    path = folder / "special" / name
    if path not in found:
        pytest.skip(f"{name} cannot be made here")
    assert matter in found[path]["picture"]


def test_reading_takes_memory_for_what_is_there_and_not_for_what_is_claimed(looked_at):
    assert looked_at[1] < 200_000_000


def test_a_batch_does_all_that_can_be_done_and_names_the_rest(stylize, pictures, folder, found, monkeypatch, capsys):
    monkeypatch.setattr(reading, "PIPE_TIMEOUT", 0.05)
    assert stylize("--max-pixels", "60000", content=folder, style=pictures / "style" / "dots.png") == 1
    said = capsys.readouterr()
    names = result_names(find_places([folder]))
    sizes = {path: found[path]["picture"] for path in names}
    small = {path for path, size in sizes.items() if not isinstance(size, str) and size[0] * size[1] <= 60_000}
    files = {path: Path(f"{names[path]}_stylized_dots-png") for path in small}
    expected = {file.with_name(fitting_name(file.name, ".png")): sizes[path] for path, file in files.items()}
    assert {path.relative_to(pictures / "out") for path in (pictures / "out").rglob("*.png")} == set(expected)
    for name, size in expected.items():
        with Image.open(pictures / "out" / name) as picture:
            assert [picture.height, picture.width] == size, name
    assert f"{len(expected)} pictures written, {len(names) - len(expected)} failures" in said.out
    lines = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert len(lines) == len(names) - len(expected)
    for path in set(names) - small:
        assert any(line.startswith(f"failed: {printable_path(path)}: ") for line in lines), path


if __name__ == "__main__":
    look_at_all(Path(sys.argv[1]))
