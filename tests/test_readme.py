"""What the README and the guides say can be done, can be done."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from arbitrary_nst.batch import StylizeConfig
from arbitrary_nst.image import load_image
from arbitrary_nst.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "arbitrary_nst" / "pretrained" / "light.md"]


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example.replace('"examples/', f'"{(ROOT / "examples").as_posix()}/'), {})
    photo = load_image(ROOT / "examples" / "content" / "coffee.jpg")
    assert load_image("coffee.png").shape == load_image("between.png").shape == photo.shape


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_of_a_quoted_command_exists(page):
    known = {
        config: {field.name.replace("_", "-") for field in fields(config)} for config in (StylizeConfig, TrainConfig)
    }
    for command in re.findall(r"python (?:infer|train)\.py[^\n`#]*", page.read_text(encoding="utf-8")):
        config = StylizeConfig if "infer.py" in command else TrainConfig
        for option in re.findall(r"--([a-z][a-z-]*)", command):
            assert option in known[config], f"{page.name}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
