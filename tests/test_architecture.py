"""The package's layers: a module imports only from its own folder and those below (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import arbitrary_nst
from arbitrary_nst.commands import COMMANDS

PACKAGE = Path(arbitrary_nst.__file__).parent
LAYERS = (
    ("errors",),
    ("runtime",),
    ("image",),
    ("nn",),
    ("models", "data", "tracking"),
    ("optimization",),
    ("stylization",),
    ("evaluation",),
    ("training", "video", "web", "site", "benchmark"),
    ("commands",),
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
SURFACES = {"__init__": LAYER["commands"], "__main__": LAYER["commands"] + 1}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
HEAVY = ("torch", "torchvision", "timm", "wandb", "numpy", "PIL", "tyro", "lightning_fabric", "jaxtyping")


def parse(module: tuple[str, ...]) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> set[str]:
    """Folders of the package that a module imports from anywhere: "image" for `from arbitrary_nst.image import ...`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= set(below) if node.module == "arbitrary_nst" else {node.module}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "arbitrary_nst" and len(part) > 1 and part[1] != "__version__"}


def test_imports_are_seen_in_every_form_and_at_every_depth():
    source = """
import arbitrary_nst.image, torch
from arbitrary_nst import nn, __version__
from arbitrary_nst.models.serialization import load_model
def f():
    from arbitrary_nst.commands import main
"""
    assert imports(ast.parse(source)) == {"image", "nn", "models", "commands"}


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_module_imports_only_from_layers_below_its_own(module):
    own = module[0]
    assert own in LAYER or own in SURFACES, f"{own} has no layer yet: add it here and to docs/architecture.md"
    height = LAYER.get(own, SURFACES.get(own, 0))
    allowed = {name for name, layer in LAYER.items() if layer < height} | ({own} if len(module) > 1 else set())
    assert imports(parse(module)) <= allowed


def test_every_command_has_a_file_of_its_name():
    names = {module[1] for module in MODULES if module[0] == "commands"}
    assert names == {*COMMANDS, "__init__", "options"}


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_module_says_what_it_is_for(module):
    assert ast.get_docstring(parse(module))


@pytest.mark.parametrize("name", arbitrary_nst.__all__)
def test_public_name_can_be_imported(name):
    assert getattr(arbitrary_nst, name).__module__.startswith("arbitrary_nst.")


def test_dir_lists_the_public_names():
    assert set(arbitrary_nst.__all__) | {"__version__"} <= set(dir(arbitrary_nst))


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = arbitrary_nst.nonesuch


@pytest.mark.parametrize("module", ["arbitrary_nst", "arbitrary_nst.commands"])
def test_import_in_a_fresh_interpreter_is_light(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert run.stdout.strip() == ""
    assert run.stderr == ""
