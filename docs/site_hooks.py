"""What the site shows beside the pages of this folder; `make docs` calls it (see MkDocs' hooks)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "entries.md": "leaderboards/CONTRIBUTING.md",
}
"""Page of the site to file outside ``docs``, which is read where it lies."""

SHOWN = ("leaderboards/index.html", "benchmarks/results/*.json")
"""Files that pages link to, copied as they are."""

MOVED = {
    "../": "",
    "docs/": "",
    "leaderboards/README.md": "leaderboards/index.html",
    "builders/sd15/classes.toml": "pairs.md",
    **{source: page for page, source in PAGES.items()},
}
"""How a link in the repository begins, and what that is on the site."""


def on_config(config: Any, **_: Any) -> Any:
    """Put the packages' pages into the menu, below the reference's own."""
    (menu,) = (entry for entry in config.nav if "Reference" in entry)
    menu["Reference"] = ["api/index.md", *(path for path, _ in reference())]
    return config


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the front page, the notebook, the pairs, the reference and what pages link to."""
    made = {page: (ROOT / source).read_text() for page, source in PAGES.items()}
    made["tutorial.md"] = notebook((ROOT / "docs" / "tutorial.ipynb").read_text())
    made["pairs.md"] = pairs((ROOT / "builders/sd15/classes.toml").read_text())
    made.update(reference())
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""

    def moved(link: re.Match[str]) -> str:
        target = link[1]
        for old, new in MOVED.items():
            if target.startswith(old):
                target = new + target[len(old) :]
        return f"]({target})"

    return re.sub(r"\]\(([^)\s:]+)\)", moved, markdown)


def notebook(text: str) -> str:
    """A notebook as Markdown: its text, and its code."""
    return "\n\n".join(
        "".join(cell["source"])
        if cell["cell_type"] == "markdown"
        else f"```python\n{''.join(cell['source'])}\n```"
        for cell in json.loads(text)["cells"]
    )


PAIR = {
    "": "index",
    "class": "name",
    "spurious feature": "spurious_feature",
    "noun": "noun",
    "why this noun": "noun_reason",
    "object looked for": "object_query",
    "feature looked for": "feature_query",
}
"""Columns of the pairs' table, and their keys in classes.toml."""


def pairs(text: str) -> str:
    """A recipe's classes as a table: each with its noun, why, and what the detector looks for."""
    entries = tomllib.loads(text)["classes"]
    doubtful = sum("noun_reason" in entry for entry in entries)
    rows = [PAIR.keys(), ["---"] * len(PAIR)]
    rows += [[str(entry.get(key, "")) for key in PAIR.values()] for entry in entries]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"# The {len(entries)} pairs of Spurious ImageNet\n\n"
        f"As the recipe `sd15` has them; {doubtful} nouns have a reason beside them. How they were "
        f"chosen: [Your own classes](classes.md#the-noun).\n\n{table}\n"
    )


def reference() -> Iterator[tuple[str, str]]:
    """A page per package, with the docstrings of its modules."""
    for package in sorted(path.parent for path in (ROOT / "spurbench").glob("*/__init__.py")):
        modules = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in sorted(package.rglob("*.py"))
            if path.name != "__init__.py"
        ]
        entries = "\n".join(f"::: {module}\n" for module in modules)
        yield f"api/{package.name}.md", f"# spurbench.{package.name}\n\n{entries}"
