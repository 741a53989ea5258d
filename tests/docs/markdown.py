"""Reads the project's documents: code blocks, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
)

_FENCE = re.compile(r"^```(\w*)$")
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where its text begins, its language and its text."""

    path: Path
    line: int
    language: str
    text: str


def name_of(path: Path) -> str:
    """The document's name from the top of the project."""
    return str(path.relative_to(ROOT))


def blocks_of(path: Path) -> Iterator[Block]:
    """The fenced blocks, in order."""
    opened: tuple[int, str] | None = None
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence and opened is None:
            opened = (number + 1, fence[1])
        elif fence and opened is not None:
            yield Block(path, opened[0], opened[1], "\n".join(lines[opened[0] - 1 : number - 1]) + "\n")
            opened = None
    assert opened is None, f"{name_of(path)}:{opened}: a block without an end"


def prose_of(path: Path) -> str:
    """The text outside of fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def tables_of(path: Path, heading: str) -> list[list[str]]:
    """The rows of all tables under a heading, without their heads."""
    part = re.split(rf"^#+ {re.escape(heading)}$", path.read_text(), flags=re.MULTILINE)[1]
    lines = re.split(r"^#+ ", part, flags=re.MULTILINE)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    heads = {i - 1 for i, line in enumerate(line for line in lines if line.startswith("|")) if line.startswith("|-")}
    return [row for i, row in enumerate(rows) if i not in heads]


def links_of(path: Path) -> list[str]:
    """Where the document's links and pictures point."""
    return [match[1] for match in _LINK.finditer(prose_of(path))]


def anchors_of(path: Path) -> set[str]:
    """The anchors of the document's headings."""
    titles = (match[1].lower() for match in _HEADING.finditer(prose_of(path)))
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}
