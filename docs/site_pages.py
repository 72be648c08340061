"""Hooks of the documentation site: pages from files outside docs/, and links that fit repository and site."""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "arbitrary_nst/assets/pretrained/light.md": "model_card.md",
    "arbitrary_nst/assets/pretrained/features.md": "feature_networks.md",
}
"""Files of the repository by the name of their page."""

SOURCES = {page: source for source, page in OUTSIDE.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the relative links of a page; a link to a file that has no page becomes plain text."""
    name = page.file.src_uri
    folder = PurePosixPath(SOURCES.get(name, f"docs/{name}")).parent

    def rewritten(match: re.Match[str]) -> str:
        text, target, anchor = match["text"], match["target"], match["anchor"] or ""
        path = PurePosixPath(os.path.normpath(folder / target)).as_posix()
        if not (ROOT / path).exists():
            return match[0]  # mkdocs reports it
        inside = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        return f"{text}({inside}{anchor})" if inside else text.strip("![]")

    return re.sub(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)#:]+)(?P<anchor>#[^)]*)?\)", rewritten, markdown)
