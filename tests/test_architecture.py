"""The package's layers: a module imports only from those below its own (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import arbitrary_nst

PACKAGE = Path(arbitrary_nst.__file__).parent
LAYERS = (
    ("paths", "image", "color", "figures", "statistics", "weights", "devices", "processes", "provenance"),
    ("normalization", "losses", "features", "masks"),
    ("models", "data", "recipes", "tiling"),
    ("objectives", "gatys", "stylizer", "styles", "metrics"),
    (
        *("training", "preparation", "tracking", "video", "evaluation", "optimization", "benchmark", "export", "batch"),
        "style_command",
    ),
    ("cli", "web"),
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
EXCEPTIONS = {
    ("image", "paths"),
    ("figures", "paths"),
    ("training", "tracking"),
    ("optimization", "tracking"),
    ("benchmark", "export"),
    ("video", "batch"),
    ("__main__", "cli"),
}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
HEAVY = ("torch", "torchvision", "timm", "wandb", "numpy", "PIL", "tyro", "lightning_fabric", "jaxtyping")


def parse(module: tuple[str, ...]) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> set[str]:
    """What is imported of the package, anywhere in a module: "image" for `from arbitrary_nst.image import ...`."""
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
from arbitrary_nst import losses, __version__
from arbitrary_nst.models.files import load_model
def f():
    from arbitrary_nst.cli import main
"""
    assert imports(ast.parse(source)) == {"image", "losses", "models", "cli"}


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_module_imports_only_from_layers_below_its_own(module):
    own = module[0]
    if own == "__init__":
        allowed = {name for name, layer in LAYER.items() if layer < LAYER["cli"]}
    elif own == "__main__":
        allowed = set()
    else:
        assert own in LAYER, f"{own} has no layer yet: add it here and to docs/architecture.md"
        allowed = {name for name, layer in LAYER.items() if layer < LAYER[own]} | ({own} if len(module) > 1 else set())
    allowed |= {target for source, target in EXCEPTIONS if source == own}
    assert imports(parse(module)) <= allowed


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_module_says_what_it_is_for(module):
    assert ast.get_docstring(parse(module))


@pytest.mark.parametrize("name", arbitrary_nst.__all__)
def test_public_name_can_be_imported(name):
    assert getattr(arbitrary_nst, name).__module__.startswith("arbitrary_nst.")


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = arbitrary_nst.nonesuch


@pytest.mark.parametrize("module", ["arbitrary_nst", "arbitrary_nst.cli"])
def test_import_in_a_fresh_interpreter_is_light(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert run.stdout.strip() == ""
    assert run.stderr == ""
