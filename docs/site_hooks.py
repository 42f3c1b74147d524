"""Hooks of the documentation site: pages that are made from the repository instead of being written twice.

- `reference/ROOM.md`, one page for each room of the package, from its docstrings;
- `contributing.md` and `changelog.md`, which are CONTRIBUTING.md and CHANGELOG.md of the repository's root;
- `tutorials/NAME.md` from the executed notebook `tutorials/NAME.ipynb`. As Markdown it is checked for its links, searched
  and shown like any other page, and fetches nothing from the network. The pages that mkdocs-jupyter makes fetch MathJax,
  and their links are neither checked nor turned into links of the site.

Links keep working both on the site and where the repository is read as files: a link to a source file of the package
leads to the reference page of its room, a link to a file that the site does not have is refused by the strict build.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tests read this module without MkDocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "robpicker_jax"
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
NOTEBOOK_LINK = re.compile(r"(\]\((?:[\w.]+/)*tutorials/\w+)\.ipynb\)")
SOURCE_LINK = re.compile(rf"\]\((?:\.\./)*{PACKAGE}/(\w+)/[\w/]*(?:\.py)?\)")


def rooms() -> list[str]:
    """The rooms of the package from the top to the bottom, as the import contract in pyproject.toml lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    return [room.strip() for layer in contract["layers"] for room in re.split("[|:]", layer)]


def reference_page(room: str) -> str:
    """Markdown of a room's reference page."""
    return f"# `{PACKAGE}.{room}`\n\n::: {PACKAGE}.{room}\n"


def with_site_links(markdown: str) -> str:
    """The text with links to source files and to pages of the root turned into links to their pages on the site."""
    for page, original in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{original}", f"]({page}")
    markdown = NOTEBOOK_LINK.sub(r"\1.md)", markdown)
    return SOURCE_LINK.sub(r"](reference/\1.md)", markdown)


def root_page(name: str) -> str:
    """A page of the repository's root with its links into docs/ made relative to docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for page, original in ROOT_PAGES.items():
        text = text.replace(f"]({original}", f"]({page}")
    return text.replace("](docs/", "](")


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of an executed notebook, and its pictures by file name."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        magic, _, commands = source.partition("\n")
        parts.append(f"```sh\n{commands}\n```" if magic == "%%bash" else f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the lines above draw]({name})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f'```text title="prints"\n{text}\n```')
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n[This page as a notebook]({path.name})\n{rest}\n", pictures


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation."""
    if config.nav is None:
        raise ValueError("mkdocs.yml has no nav, which the generated pages are added to")
    (project,) = [section["Project"] for section in config.nav if "Project" in section]
    project += [{"Contributing": "contributing.md"}, {"Changes": "changelog.md"}]
    pages = [{"The package": "reference/index.md"}]
    config.nav.append({"Reference": pages + [{room: f"reference/{room}.md"} for room in reversed(rooms())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for page, name in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=root_page(name)))
    public = f"# `{PACKAGE}`\n\n::: {PACKAGE}\n    options:\n      show_submodules: false\n"
    files.append(File.generated(config, "reference/index.md", content=public))
    for room in rooms():
        files.append(File.generated(config, f"reference/{room}.md", content=reference_page(room)))
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        page, pictures = notebook_page(path)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrite links to source files."""
    return with_site_links(markdown)
