"""The command line: a command's name, its configuration, and the function that carries it out."""

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command lives; its module is imported only when it is called."""

    summary: str
    module: str
    config: str
    function: str


COMMANDS = {
    "stylize": Command("put photos into the style of paintings", "batch", "StylizeConfig", "stylize_files"),
    "train": Command("train a style model", "training", "TrainConfig", "train"),
    "optimize": Command("optimize one picture (Gatys et al.)", "optimization", "OptimizeConfig", "optimize_files"),
    "evaluate": Command("compare methods on the same pairs", "evaluation", "EvaluateConfig", "evaluate"),
    "export": Command("write a model as ONNX files", "export", "ExportConfig", "export"),
    "style": Command("save, list, mix and show styles as files", "style_command", "StyleConfig", "manage_styles"),
    "benchmark": Command("time the stylizing of one picture", "benchmark", "BenchmarkConfig", "benchmark"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 something could not be done, 2 wrong command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"error: unknown command '{name}'\n\n{usage()}", file=sys.stderr)
        return 2

    import tyro

    command = COMMANDS[name]
    module = import_module(f"arbitrary_nst.{command.module}")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("timm").setLevel(logging.ERROR)  # it lists the classifier weights that a backbone leaves out
    try:
        config_class = getattr(module, command.config)
        default = preset_default(config_class, getattr(module, "PRESETS", {}), arguments[1:])
        given = {} if default is None else {"default": default}
        config = tyro.cli(config_class, prog=f"arbitrary_nst {name}", args=arguments[1:], **given)
    except SystemExit as stop:  # help was asked for, or the command line was wrong and tyro has said so
        return int(stop.code or 0)
    try:
        return getattr(module, command.function)(config)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except tuple(_expected_errors()) as error:
        return _refuse(error, 1)
    except ValueError as error:  # options that contradict each other or the files
        return _refuse(error, 2)


def preset_default(config_class: Any, presets: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> Any:
    """What options are by default after `--preset NAME`: a configuration, or None without a known preset.

    Options that must be given stay so.
    """
    import tyro

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default="")
    name = parser.parse_known_args(arguments)[0].preset
    if name not in presets:
        return None
    given = {"preset": name, **presets[name]}
    required = [f.name for f in fields(config_class) if f.default is MISSING and f.default_factory is MISSING]
    return config_class(**{option: tyro.MISSING for option in required if option not in given}, **given)


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"usage: python -m arbitrary_nst COMMAND [OPTIONS]\n\n{commands}\n\nCOMMAND --help tells its options."


def _expected_errors() -> list[type[Exception]]:
    """Errors whose message says all that a user needs; what is not foreseen shows its traceback."""
    from arbitrary_nst.models.files import ModelFileError
    from arbitrary_nst.paths import ImageError
    from arbitrary_nst.styles import StyleFileError
    from arbitrary_nst.weights import WeightsNotFoundError

    return [ImageError, ModelFileError, StyleFileError, WeightsNotFoundError, FloatingPointError]


def _refuse(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
