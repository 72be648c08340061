"""The command line: a command's name, its configuration, and the function that carries it out."""

import json
import logging
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Command:
    """Where a command lives; its module is imported only when it is called."""

    summary: str
    module: str
    config: str
    function: str


COMMANDS = {
    "stylize": Command("put photos into the style of paintings", "batch", "StylizeConfig", "stylize_files"),
    "prepare": Command("make shards of a collection to train on", "preparation", "PrepareConfig", "prepare"),
    "video": Command("put a video into the style of paintings", "video", "VideoConfig", "stylize_video"),
    "train": Command("train a style model", "training", "TrainConfig", "train"),
    "optimize": Command("optimize one picture (Gatys et al.)", "optimization", "OptimizeConfig", "optimize_files"),
    "evaluate": Command("compare methods on the same pairs", "evaluation", "EvaluateConfig", "evaluate"),
    "export": Command("write a model as ONNX files", "export", "ExportConfig", "export"),
    "style": Command("save, list, mix and show styles as files", "style_command", "StyleConfig", "manage_styles"),
    "serve": Command("open a page in the browser that stylizes photos", "web", "ServeConfig", "serve"),
    "benchmark": Command("time encoding and painting beside peers", "benchmark", "BenchmarkConfig", "benchmark"),
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
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its lines and warnings name no file; our errors do
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("timm").setLevel(logging.ERROR)  # it lists the classifier weights that a backbone leaves out
    try:
        config_class = getattr(module, command.config)
        default = chosen_default(config_class, getattr(module, "PRESETS", {}), arguments[1:])
        given = {} if default is None else {"default": default}
        config = tyro.cli(config_class, prog=f"arbitrary_nst {name}", args=arguments[1:], **given)
    except SystemExit as stop:  # help was asked for, or the command line was wrong and tyro has said so
        return int(stop.code or 0)
    except ValueError as error:
        return _refuse(error, 2)
    try:
        return getattr(module, command.function)(config)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except tuple(_expected_errors()) as error:
        return _refuse(error, 1)
    except ValueError as error:  # options that contradict each other or the files
        return _refuse(error, 2)


def chosen_default(config_class: Any, presets: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> Any:
    """What options are by default after `--config FILE` and `--preset NAME`: a configuration, or None without either.

    A preset changes what the file says. Options that must be given stay so. Raises ValueError where the file is wrong.
    """
    import tyro

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default="")
    parser.add_argument("--config", type=Path)
    chosen = parser.parse_known_args(arguments)[0]
    options = fields(config_class) if hasattr(config_class, "__dataclass_fields__") else ()
    given: dict[str, Any] = {}
    if chosen.config is not None and "config" in {option.name for option in options}:
        given |= read_options(config_class, chosen.config)
    if chosen.preset in presets:
        given |= {"preset": chosen.preset, **presets[chosen.preset]}
    if not given:
        return None
    required = [f.name for f in options if f.default is MISSING and f.default_factory is MISSING]
    return config_class(**{option: tyro.MISSING for option in required if option not in given}, **given)


def read_options(config_class: Any, path: Path) -> dict[str, Any]:
    """Options of a configuration from a JSON file, each of its type.

    Raises ValueError, naming the file and the option.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--config {path}: not a JSON file of options ({error})") from error
    types, options = get_type_hints(config_class), {}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"--config {path}: there is no option '{name}'; there are {', '.join(types)}")
        try:
            options[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"--config {path}: {name}: {error.errors()[0]['msg']}") from error
        unknown = set(value) - {f.name for f in fields(options[name])} if is_dataclass(options[name]) else set()
        if unknown:
            raise ValueError(f"--config {path}: {name} has no {', '.join(sorted(unknown))}")
    return options


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
