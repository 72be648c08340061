"""Docstrings of the public names: a summary, and every argument, return value and exception."""

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import arbitrary_nst
from arbitrary_nst import errors

SECTIONS = ("Args", "Returns", "Raises")
NO_SUMMARY = re.compile(r"(What|Whatever|Of|Where|How|Whether|By|That|Which|Who|When)\b")


def sections(docstring: str) -> dict[str, list[str]]:
    """The names that each section documents: parameters, exceptions, or the first words of the return value."""
    found: dict[str, list[str]] = {}
    for title, body in re.findall(rf"^({'|'.join(SECTIONS)}):\n((?:    .*\n|\n)+)", docstring + "\n", re.MULTILINE):
        found[title] = [name.strip("*") for name in re.findall(r"^    ([^\s:][^:\n]*)", body, re.MULTILINE)]
    return found


def raised(function: Callable, scope: dict[str, Any]) -> set[str]:
    """Exceptions that a function raises itself or in the helpers `_check...` that it calls."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)
        called = node.func if isinstance(node, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if name.startswith("_check") and callable(scope.get(name)):
            names |= raised(scope[name], scope)
    return names


def faults(function: Callable, docstring: str | None, scope: dict[str, Any], summary: bool = True) -> list[str]:
    """Everything that a function's docstring lacks.

    Args:
        function: whose signature and source are read.
        docstring: its own, or that of the class for a constructor.
        scope: helpers by name.
        summary: whether the first line is checked too.
    """
    text = inspect.cleandoc(docstring or "")
    found, signature = sections(text), inspect.signature(function)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    first = text.partition("\n")[0]
    missing = []
    if summary and (not first.endswith(".") or NO_SUMMARY.match(first)):
        missing.append("summary")
    if found.get("Args", []) != parameters:
        missing.append(f"Args: {parameters}")
    if signature.return_annotation not in (None, "None", inspect.Signature.empty) and "Returns" not in found:
        missing.append("Returns")
    names = vars(builtins) | vars(errors) | scope
    told = tuple(names[name] for name in found.get("Raises", []))
    untold = {name for name in raised(function, scope) if not issubclass(names[name], told)}
    return missing + [f"Raises: {name}" for name in sorted(untold)]


def documented() -> Iterator[Any]:
    """A case for each public function, constructor and method."""
    for name in arbitrary_nst.__all__:
        value = getattr(arbitrary_nst, name)
        scope = dict(vars(inspect.getmodule(value)))  # type: ignore[arg-type]
        if not inspect.isclass(value):
            yield pytest.param(value, value.__doc__, scope, id=name)
            continue
        own = dict(vars(value))
        scope |= own
        if "__init__" in own:
            yield pytest.param(own["__init__"], value.__doc__, scope, id=name)
        for method, member in own.items():
            if method.startswith("_") and method != "__call__":
                continue
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            if inspect.isfunction(member):
                yield pytest.param(inspect.unwrap(member), member.__doc__, scope, id=f"{name}.{method}")


@pytest.mark.parametrize(("function", "docstring", "scope"), list(documented()))
def test_public_function_documents_arguments_return_value_and_exceptions(function, docstring, scope):
    assert faults(function, docstring, scope) == []


def test_every_public_class_and_property_has_a_summary():
    for name in arbitrary_nst.__all__:
        value = getattr(arbitrary_nst, name)
        members = vars(value).items() if inspect.isclass(value) else ()
        properties = [member for key, member in members if isinstance(member, property) and not key.startswith("_")]
        for item in (value, *properties):
            first = inspect.cleandoc(item.__doc__ or "").partition("\n")[0]
            assert first, name
            assert not NO_SUMMARY.match(first), first


def test_what_a_docstring_lacks_is_found():
    def _check(size: int) -> None:
        if size < 0:
            raise TypeError("negative")

    def halve(size: int, name: str = "") -> int:
        """Whether it is half."""
        _check(size)
        if size % 2:
            raise ValueError("odd")
        return size // 2

    scope = {"_check": _check}
    lacking = ["summary", "Args: ['size', 'name']", "Returns", "Raises: TypeError", "Raises: ValueError"]
    assert faults(halve, halve.__doc__, scope) == lacking
    whole = """Half of a size.

    Args:
        size: in pixels, even,
            not negative.
        name: anything.

    Returns:
        The half: in pixels.

    Raises:
        TypeError: if it is negative.
        ValueError: if it is odd.
    """
    assert faults(halve, whole, scope) == []
