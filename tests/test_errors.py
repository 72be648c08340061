"""The exception tree, and what commands make of it: exit codes, one line or a traceback."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

import arbitrary_nst
from arbitrary_nst import commands as cli
from arbitrary_nst import errors
from arbitrary_nst.commands import main
from arbitrary_nst.errors import ArbitraryNSTError, ImageError, MissingPackageError, OutputError, UsageError, requires
from arbitrary_nst.runtime.files import atomic_write, check_output_folder, printable, reraise_with_path

PACKAGE = Path(arbitrary_nst.__file__).parent


@pytest.mark.parametrize(
    ("name", "modules", "base"),
    [
        ("ImageError", ("runtime.files",), Exception),
        ("ModelFileError", ("models.serialization",), ValueError),
        ("ExportMismatch", ("commands.export",), ValueError),
        ("StyleFileError", ("stylization.style_files",), ValueError),
        ("WeightsNotFoundError", ("runtime.weights",), RuntimeError),
        ("CheckpointError", ("training", "training.checkpoints"), RuntimeError),
        ("TrainingDiverged", ("training", "training.loop"), FloatingPointError),
        ("TrainingInterrupted", ("training", "training.loop"), Exception),
        ("OptimizationDiverged", ("optimization.loop",), FloatingPointError),
        ("UsageError", ("errors",), ValueError),
        ("MissingPackageError", ("errors",), ImportError),
        ("OutputError", ("errors",), OSError),
    ],
)
def test_every_error_is_of_the_tree_and_found_where_it_is_raised(name, modules, base):
    error = getattr(errors, name)
    assert issubclass(error, ArbitraryNSTError)
    assert issubclass(error, base)
    assert all(getattr(import_module(f"arbitrary_nst.{module}"), name) is error for module in modules)


def test_the_tree_in_the_docstring_is_complete():
    classes = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    listed = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(listed) == sorted(name for name in classes - {"ArbitraryNSTError"} if name[0].isupper())


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_that_name_an_option_are_usage_errors(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            text = ast.get_source_segment(source, node) or ""
            assert node.exc.func.id != "ValueError" or not re.search(r"--[a-z{]", text), text


# What a command makes of them


@pytest.fixture
def failing(monkeypatch):
    """A command that raises."""

    def run(error, *options):
        module = type(sys)("arbitrary_nst.commands.failing")
        module.Config, module.command = dict, None  # type: ignore[attr-defined]

        def command(config):
            raise error

        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "arbitrary_nst.commands.failing", module)
        monkeypatch.setitem(cli.COMMANDS, "failing", cli.Command("fail", "Config", "command"))
        monkeypatch.setattr(cli, "_parse", lambda *arguments: None)
        return main(["failing", *options])

    return run


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("--alpha 2: too much"), 2, "--alpha 2"),
        (ImageError("a.png: broken"), 1, "a.png: broken"),
        (MissingPackageError("pip install 'arbitrary_nst[video]'"), 1, "arbitrary_nst[video]"),
        (OSError(errno.ENOSPC, "No space left on device", "out.png"), 1, "out.png: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), 1, "runs: the disk is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "out: permission denied"),
        (FileExistsError(errno.EEXIST, "File exists", "out"), 1, "out: a file is where a folder should be"),
    ],
)
def test_known_errors_are_one_line(failing, capsys, error, code, words):
    assert failing(error) == code
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("error", [ValueError("out of torch"), RuntimeError("a fault"), KeyError("x")])
def test_unexpected_errors_show_their_traceback_and_exit_with_1(failing, capsys, error):
    assert failing(error) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("error: ")
    assert type(error).__name__ in said.splitlines()[-1]


@pytest.mark.parametrize("error", [UsageError("--alpha 2"), ImageError("a.png"), OSError(errno.ENOSPC, "full", "a")])
def test_debug_shows_every_traceback(failing, capsys, error):
    failing(error, "--debug")
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("error: ")


def test_ctrl_c_is_130(failing, capsys):
    assert failing(KeyboardInterrupt()) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_ends_any_command_in_any_moment(failing, monkeypatch, capsys, name):
    number = getattr(signal, name)
    importing = cli.import_module
    before = signal.getsignal(number)

    def interrupted(module):
        os.kill(os.getpid(), number)
        return importing(module)

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert failing(None) == 128 + number
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(number) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(failing, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        monkeypatch.setattr(cli, "terminable", handled_and_sent(cli.terminable))
        assert failing(UsageError("--alpha 2")) == 2
    finally:
        signal.signal(signal.SIGHUP, before)


def handled_and_sent(terminable):
    """The context, in which SIGHUP is sent at once."""

    @contextmanager
    def sent():
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
            yield

    return sent


HANGING = """
import sys, time
from arbitrary_nst import commands as cli
def run(arguments, debug):
    print("here", flush=True)
    try:
        time.sleep(60)
    finally:
        print("unfinished", end="")
        print("unfinished", end="", file=sys.stderr)
cli._run = run
sys.exit(cli.main([]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_terminal_that_goes_away_is_129():
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{HANGING}"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
        cwd=PACKAGE.parent,
    )
    os.close(theirs)
    said = b""
    while b"here" not in said:
        said += os.read(ours, 1024)
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP


STOPPING = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "arbitrary_nst.commands":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("command", [["infer.py"], ["train.py"], ["-m", "arbitrary_nst"]])
def test_ctrl_c_before_the_command_line_is_there_is_130(tmp_path, command):
    (tmp_path / "sitecustomize.py").write_text(STOPPING)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])}
    options = {"cwd": PACKAGE.parent, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, *command, "--help"], **options)
    assert done.returncode == 130
    assert done.stderr == "interrupted\n"
    assert done.stdout == ""


def test_ctrl_c_during_imports_is_130(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert main(["stylize"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_messages_cannot_steer_the_terminal(failing, capsys):
    failing(ImageError("\x1b[2Ja.png: broken\udcff"))
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "a.png: broken" in said
    assert printable("é 漢\x1b\x07") == "é 漢\\x1b\\x07"


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["arbitrary_nst", arbitrary_nst.__version__]
    assert main(["stylize", "--version"]) == 0


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["stilize"], "did you mean stylize?"),
        (["export", "--outptu", "x"], "--outptu; did you mean --output?"),
        (["stylize", "--contnt", "x"], "--contnt; did you mean --content?"),
        (["style", "save", "a.png", "--outptu=x"], "--outptu; did you mean --output?"),
        (["optimize", "--start", "content"], "--start; its name is --init"),
        (["optimize", "--start-image=x.png"], "--start-image; its name is --init-image"),
        (["train", "--explosion", "9"], "--explosion; its name is --max-grad-ratio"),
    ],
)
def test_misspelled_names_are_corrected(capsys, arguments, meant):
    assert main(arguments) == 2
    assert meant in capsys.readouterr().err


def test_an_option_without_its_file_is_a_usage_error():
    assert main(["train", "--config"]) == 2


def test_help_has_whole_sentences_and_plain_types(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["stylize", "--help"]) == 0
    text = capsys.readouterr().out
    assert "{None}" not in text
    assert re.search(r"--content-size INT\b", text)
    words = " ".join(text.replace("│", " ").split())
    assert "for a model that knows only its own styles their names, or nothing for all of them." in words
    lines = [line.strip("│ ") for line in text.splitlines()]
    assert not any(line.startswith("their names, or nothing") for line in lines)


def test_an_option_without_a_value_can_still_be_none(monkeypatch):
    import tyro

    from arbitrary_nst.commands.export import ExportConfig
    from arbitrary_nst.commands.options import registry

    config = tyro.cli(ExportConfig, args=["--output", "None", "--hub", "a/b"], registry=registry())
    assert config.output is None
    assert tyro.cli(ExportConfig, args=["--output", "x"], registry=registry()).output == Path("x")


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:9"])
def test_a_device_that_is_not_here_is_a_usage_error(device):
    import torch

    from arbitrary_nst.runtime.devices import chosen_device

    kind, _, index = device.partition(":")
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) < there:
        pytest.skip(f"{device} is here")
    with pytest.raises(UsageError, match=f"--device {device}"):
        chosen_device(device)


@pytest.mark.parametrize("command", ["stylize", "style save", "evaluate", "benchmark"])
def test_commands_refuse_a_device_that_is_not_here(command, pictures, model_file, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    content, style, output = pictures / "content", pictures / "style", pictures / "out"
    arguments = {
        "stylize": ["--content", content, "--style", style, "--output", output, "--model", model_file],
        "style save": [style, "--output", output, "--model", model_file],
        "evaluate": ["--content", content, "--style", style, "--output", output, "--methods", model_file],
        "benchmark": ["--model", model_file],
    }[command]
    assert main([*command.split(), *map(str, arguments), "--device", "cuda"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "--device cuda" in errors[0]


def test_evaluate_refuses_a_file_in_the_place_of_its_folder(pictures, capsys):
    (pictures / "file").touch()
    paths = ["--content", str(pictures / "content"), "--style", str(pictures / "style")]
    assert main(["evaluate", *paths, "--methods", "light", "--output", str(pictures / "file")]) == 2
    assert "--output" in capsys.readouterr().err


# Packages and places


def test_a_missing_package_is_named_with_its_extra_and_passes_through_file_errors():
    with (
        pytest.raises(MissingPackageError, match=re.escape("'arbitrary_nst[video]', or give --smooth 0")) as raised,
        reraise_with_path("a.mp4", str),
        requires("--smooth", "video", ", or give --smooth 0"),
    ):
        import_module("no_such_package_at_all.part")
    assert "no_such_package_at_all:" in str(raised.value)
    assert not isinstance(raised.value, ImageError)


def test_a_fault_in_our_own_imports_is_no_missing_package():
    with pytest.raises(ModuleNotFoundError) as raised, requires("serve", "web"):
        import_module("arbitrary_nst.nonesuch")
    assert not isinstance(raised.value, MissingPackageError)


def test_a_file_in_the_place_of_a_folder_is_refused_before_work(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="file"):
            check_output_folder(place)
    check_output_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_names_the_file_and_not_the_partial_one(tmp_path):
    with pytest.raises(OSError, match="full") as raised, atomic_write(tmp_path / "a.png"):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as raised, atomic_write(tmp_path / "file" / "a.png"):
        pass
    assert raised.value.filename in (str(tmp_path / "file" / "a.png"), str(tmp_path / "file"))


def test_an_error_of_a_library_keeps_its_words(tmp_path):
    with pytest.raises(OSError, match=r"^encoder error -2$"), atomic_write(tmp_path / "a.png"):
        raise OSError("encoder error -2")


@pytest.mark.parametrize(("kind", "other"), [(ImageError, OutputError), (OutputError, ImageError)])
def test_what_is_read_and_what_is_written_are_told_apart(kind, other):
    for error in (KeyError("odd"), OSError(errno.EACCES, "Permission denied"), kind("odd")):
        with pytest.raises(kind, match=r"^a\.png: ") as raised, reraise_with_path("a.png", str, kind):
            raise error
        assert not isinstance(raised.value, other)
    with pytest.raises(other, match=r"^odd$"), reraise_with_path("a.png", str, kind):
        raise other("odd")


@pytest.mark.slow
def test_a_closed_pipe_is_silent():
    command = f"{sys.executable} -m arbitrary_nst style list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert "Traceback" not in done.stderr
