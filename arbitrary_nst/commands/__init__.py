"""The command line: a command's name, its configuration, and the function that carries it out."""

import json
import logging
import os
import sys
import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, get_type_hints

from arbitrary_nst import __version__
from arbitrary_nst.errors import ArbitraryNSTError, UsageError, did_you_mean
from arbitrary_nst.runtime.processes import exit_code, terminable


@dataclass(frozen=True)
class Command:
    """The names of a command in `commands/NAME.py`, which is imported only when the command is called."""

    summary: str
    config: str
    function: str


COMMANDS = {
    "stylize": Command("put photos into the style of paintings", "StylizeConfig", "stylize_files"),
    "prepare": Command("make shards of a collection to train on", "PrepareConfig", "prepare"),
    "video": Command("put a video into the style of paintings", "VideoConfig", "stylize_video"),
    "train": Command("train a style model", "TrainConfig", "train"),
    "optimize": Command("optimize one picture (Gatys et al.)", "OptimizeConfig", "optimize_files"),
    "evaluate": Command("compare methods on the same pairs", "EvaluateConfig", "evaluate"),
    "export": Command("write a model as ONNX files", "ExportConfig", "export"),
    "style": Command("save, list, mix and show styles as files", "StyleConfig", "manage_styles"),
    "serve": Command("open a page in the browser that stylizes photos", "ServeConfig", "serve"),
    "benchmark": Command("time encoding and painting beside peers", "BenchmarkConfig", "benchmark"),
}


RUN_OPTIONS = "config.json"
"""What the file of options in a run's folder is called."""

MAX_OPTIONS = 1 << 20
"""Characters of a file of options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: everything done; 1: something could not be done; 2: the command line is wrong; 128 + N: stopped by signal N, such
    as 130 by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show, an emoji in a name, ends no work
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        with terminable():
            return _run([argument for argument in arguments if argument != "--debug"], debug)
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # after SIGHUP there is no terminal
            print("interrupted", file=sys.stderr)
        return exit_code(stop)
    except BrokenPipeError:  # `| head` has read enough
        return 1
    except Exception as error:
        stop = _stop_before(error)
        with suppress(OSError):  # after SIGHUP there is no terminal
            _report(error, debug)
        return exit_code(stop) if stop else 2 if isinstance(error, UsageError) else 1
    finally:
        _let_go_of_closed_streams()


def _stop_before(error: BaseException) -> KeyboardInterrupt | None:
    """The signal that was ending the command when the error came, such as a line that the closed terminal refused."""
    context = error.__context__
    return context if context is None or isinstance(context, KeyboardInterrupt) else _stop_before(context)


def _let_go_of_closed_streams() -> None:
    """Throw away what a closed pipe or terminal did not take, which the interpreter would fail to write as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # a test may have replaced the stream
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str], debug: bool) -> int:
    if "--version" in arguments:
        print(f"arbitrary_nst {__version__}")
        return 0
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"error: unknown command '{name}'{did_you_mean(name, COMMANDS)}\n\n{usage()}", file=sys.stderr)
        return 2

    command = COMMANDS[name]
    module = import_module(f"arbitrary_nst.commands.{name}")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if debug:
        logging.getLogger("arbitrary_nst").setLevel(logging.DEBUG)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its lines and warnings name no file; our errors do
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("timm").setLevel(logging.ERROR)  # it lists the classifier weights that a backbone leaves out
    config_class = getattr(module, command.config)
    try:
        default = chosen_default(config_class, getattr(module, "PRESETS", {}), rest)
        config = _parse(name, config_class, default, rest)
    except SystemExit as stop:  # the help is printed, or what is wrong
        return int(stop.code or 0)
    code = getattr(module, command.function)(config)
    sys.stdout.flush()  # so that a closed pipe is noticed here
    return code


def _parse(name: str, config_class: Any, default: Any, arguments: Sequence[str]) -> Any:
    """The configuration of a command. Exits as `tyro.cli` does, after a hint where an option is misspelled."""
    import tyro

    from arbitrary_nst.commands.options import misspelled, registry

    given: dict[str, Any] = {} if default is None else {"default": default}
    given |= {"prog": f"arbitrary_nst {name}", "registry": registry()}
    try:
        config = tyro.cli(config_class, args=arguments, **given)
    except SystemExit as stop:
        if stop.code:
            hints = misspelled(lambda words: tyro.cli(config_class, args=words, **given), arguments)
            print(*hints, sep="\n", end="\n" * bool(hints), file=sys.stderr)
        raise
    merged = () if default is None else getattr(config_class, "MERGED", ())
    return replace(config, **{name: getattr(default, name) | getattr(config, name) for name in merged})


def _report(error: Exception, debug: bool) -> None:
    """Print an error, with its traceback where it is not foreseen."""
    from arbitrary_nst.runtime.files import known_failure, printable, printable_path

    words = known_failure(error)
    foreseen = isinstance(error, ArbitraryNSTError) or words is not None
    if debug or not foreseen:
        traceback.print_exception(error)
    if isinstance(error, ArbitraryNSTError):
        print(*(printable(line) for line in f"error: {error}".splitlines()), sep="\n", file=sys.stderr)
    elif foreseen:
        file = getattr(error, "filename", None)
        print(f"error: {f'{printable_path(os.fsdecode(file))}: ' if file else ''}{words}", file=sys.stderr)
    else:
        print(
            f"error: {type(error).__name__} is not expected: please report it with the lines above and the output of "
            f"`python -m arbitrary_nst --version`",
            file=sys.stderr,
        )


def chosen_default(config_class: Any, presets: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> Any:
    """Defaults of the options after `--resume`, `--config FILE` and `--preset NAME`; None without any of them.

    A run that is resumed has its own options, which a file changes, which a preset changes. Options that must be given
    stay so. Raises UsageError where a file is wrong, or runs commands and is not to be trusted.
    """
    import tyro

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default="")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--run-dir", "--run_dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--allow-pipe", "--allow_pipe", action="store_true")
    chosen = parser.parse_known_args(arguments)[0]
    options = fields(config_class) if hasattr(config_class, "__dataclass_fields__") else ()
    known = {option.name for option in options}
    given: dict[str, Any] = {}
    if chosen.config is not None and "config" in known:
        given |= read_options(config_class, chosen.config)
    run_dir = chosen.run_dir or given.get("run_dir")
    if chosen.resume and "resume" in known and run_dir is not None and (run_dir / RUN_OPTIONS).exists():
        given = read_options(config_class, run_dir / RUN_OPTIONS) | given | {"run_dir": run_dir}
    if not chosen.allow_pipe:
        refuse_commands(given, arguments)
    if chosen.preset in presets:
        given |= {"preset": chosen.preset, **presets[chosen.preset]}
    if not given:
        return None
    required = [f.name for f in options if f.default is MISSING and f.default_factory is MISSING]
    return config_class(**{option: tyro.MISSING for option in required if option not in given}, **given)


def read_options(config_class: Any, path: Path) -> dict[str, Any]:
    """Options of a configuration from a JSON file, each of its type. Names of earlier versions are understood.

    Raises ValueError, naming the file and the option.
    """
    from pydantic import TypeAdapter, ValidationError

    from arbitrary_nst.commands.options import RENAMED

    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_OPTIONS + 1)
        if len(text) > MAX_OPTIONS:
            raise ValueError(f"longer than {MAX_OPTIONS} characters")
        values: dict[str, Any] = dict(json.loads(text))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"--config {path}: not a JSON file of options ({error})") from error
    types, options = get_type_hints(config_class), {}
    for name, value in values.items():
        if name == "allow_pipe":
            raise UsageError(f"--config {path}: allow_pipe is given on the command line only")
        if name not in types:
            name = RENAMED.get(name, name)
        if name not in types:
            raise UsageError(f"--config {path}: there is no option '{name}'{did_you_mean(name, types)}")
        try:
            options[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"--config {path}: {name}: {error.errors()[0]['msg']}") from error
        unknown = set(value) - {f.name for f in fields(options[name])} if is_dataclass(options[name]) else set()
        if unknown:
            raise UsageError(f"--config {path}: {name} has no {', '.join(sorted(unknown))}")
    return options


def refuse_commands(options: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Refuse data of a file of options that is read by a command of the shell (UsageError).

    Args:
        options: what the file says.
        arguments: of the command line, whose own data stand in the place of the file's.
    """
    from arbitrary_nst.data.streams import runs_commands

    own = {argument.partition("=")[0].lstrip("-").replace("-", "_") for argument in arguments}
    for name in {"content_data", "style_data"} & set(options) - own:
        for path in options[name]:
            if runs_commands(path):
                raise UsageError(
                    f"{name} of the file of options runs a command of the shell, {path!r}: add --allow-pipe where you "
                    f"trust the file, or name --{name.replace('_', '-')} yourself"
                )


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: python -m arbitrary_nst COMMAND [OPTIONS]\n\n{commands}\n\n"
        "COMMAND --help lists its options. --debug with any command shows the traceback of every error.\n"
        "--version prints the version."
    )
