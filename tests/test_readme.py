"""What the README and the guides say can be done, can be done."""

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from arbitrary_nst.commands import COMMANDS
from arbitrary_nst.image import load_image
from arbitrary_nst.nn.features import VGGConfig
from arbitrary_nst.optimization.presets import PRESETS, OptimizationConfig
from arbitrary_nst.runtime.weights import PRETRAINED

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), PRETRAINED / "light.md"]


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example.replace('"examples/', f'"{(ROOT / "examples").as_posix()}/'), {})
    photo = load_image(ROOT / "examples" / "content" / "coffee.jpg")
    assert load_image("coffee.png").shape == load_image("between.png").shape == photo.shape


def options_of(name: str) -> set[str]:
    command = COMMANDS[name]
    config = getattr(import_module(f"arbitrary_nst.commands.{name}"), command.config)
    parts = [get_args(part)[0] for part in get_args(config)] or [config]  # subcommands are a union
    parts += [OptimizationConfig, VGGConfig] if name == "optimize" else []
    return {field.name.replace("_", "-") for part in parts for field in fields(part)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_of_a_quoted_command_exists(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for script, module, rest in re.findall(r"python (?:(infer|train)\.py|-m arbitrary_nst ([a-z]+))([^\n`#]*)", text):
        known = options_of({"infer": "stylize"}.get(script, script) or module)
        for option in re.findall(r"--([a-z][a-z0-9-]*)", rest):
            assert option in known, f"{page.name}: {rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_presets_that_need_no_download_are_those_that_are_named():
    shipped = {f"relu{block}_{layer}" for block in range(1, 5) for layer in range(1, 4)}
    offline = {
        name
        for name, config in PRESETS.items()
        if config.vgg.network == "vgg16" and {*config.content_layers, *config.style_layers} <= shipped
    }
    text = " ".join((ROOT / "docs" / "optimize.md").read_text(encoding="utf-8").split())
    (named,) = re.findall(r"((?:`[a-z0-9]+`,? (?:and )?)+)need no download", text)
    assert set(re.findall("`(.*?)`", named)) == offline
