"""The fenced blocks of README.md and of the pages in docs/, and the commands that they show."""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; `not_run` is the reason in the comment before it, or empty; `line` is that of its fence."""

    language: str
    text: str
    not_run: str
    line: int


def read_blocks(page: Path) -> list[Block]:
    """The python and bash blocks of a page, in order."""
    text, found = page.read_text(), []
    for match in _BLOCK.finditer(text):
        reason, language, block = match.groups()
        if language in ("python", "bash"):
            found.append(Block(language, block, reason or "", text.count("\n", 0, match.start(3))))
    return found


def shown_commands(page: Path) -> list[list[str]]:
    """The words of each line of the page's bash blocks, continued lines joined, comments taken off."""
    texts = [block.text.replace("\\\n", " ") for block in read_blocks(page) if block.language == "bash"]
    lines = [shlex.split(line, comments=True) for text in texts for line in text.splitlines()]
    return [words for words in lines if words]


def mentioned_commands(page: Path) -> list[str]:
    """Commands in the running text: `jaxface fit ...`, `python -m jaxface.fit`, `make docs`."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`((?:jaxface [a-z]|python -m jaxface|make [a-z])[^`]*)`", text)
