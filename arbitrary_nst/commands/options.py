"""Help texts of options, and suggestions for misspelled names: what tyro leaves to us."""

import re
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import is_dataclass, replace
from functools import partial
from io import StringIO
from types import UnionType
from typing import Any, Union, get_args, get_origin

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from arbitrary_nst.errors import did_you_mean

RENAMED = {"explosion": "max_grad_ratio", "start": "init", "start_image": "init_image"}
"""Options of earlier versions, and their names now."""


def registry() -> ConstructorRegistry:
    """Rules for `tyro.cli`: help texts without the line breaks of the source, and PATH instead of {None}|PATH."""
    rules = ConstructorRegistry()
    rules.primitive_rule(_optional)
    nested: list[Any] = []

    @rules.struct_rule
    def _(info: StructTypeInfo) -> Any:
        if not is_dataclass(info.type) or info.type in nested:
            return None
        nested.append(info.type)  # so that tyro's own rule answers
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            nested.pop()
        if not isinstance(spec, StructConstructorSpec):
            return spec
        return replace(spec, fields=tuple(replace(f, helptext=partial(_one_line, f.helptext)) for f in spec.fields))

    return rules


def _one_line(text: Any) -> str | None:
    text = text() if callable(text) else text
    return None if text is None else " ".join(text.split())


def _optional(info: PrimitiveTypeInfo) -> Any:
    """`X | None` is shown as X; the word None still stands for no value."""
    kinds = get_args(info.type)
    if get_origin(info.type) not in (Union, UnionType) or len(kinds) != 2 or type(None) not in kinds:
        return None
    kind = next(k for k in kinds if k is not type(None))
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec) or inner.nargs != 1 or inner.choices:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=inner.metavar,
        instance_from_str=lambda words: None if words == ["None"] else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else inner.str_from_instance(value),
    )


def misspelled(parse: Any, arguments: Sequence[str]) -> list[str]:
    """A line for every option among the arguments that a command does not have but has renamed, or has a similar one.

    Args:
        parse: takes arguments and, for `--help`, prints the options and exits, as `tyro.cli` does.
    """
    subcommand = [word for word in arguments[:1] if not word.startswith("-")]
    text = StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        parse([*subcommand, "--help"])
    known = set(re.findall(r"--[a-z][\w.-]*", text.getvalue()))
    given = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    renamed = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in RENAMED.items()}
    hints = [
        (word, f"; its name is {renamed[word]}" if renamed.get(word) in known else did_you_mean(word, known))
        for word in given
        if word not in known
    ]
    return [f"error: there is no option {word}{hint}" for word, hint in hints if hint]
