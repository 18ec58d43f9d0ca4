"""The documentation as data: its pages, their headings, links, code blocks and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.docs import GENERATED

ROOT = Path(__file__).resolve().parents[2]
_GENERATED = {ROOT / "docs/reference" / name: make for name, make in GENERATED.items()}
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)|(?:src|srcset|href)=\"(?P<html>[^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")
_SHELL = frozenset(("sh", "console", "bash"))
_ENDS = frozenset(("|", ">", ">>", "2>", "&&", "||", ";", "<", "&"))


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block. `line` is where it begins, `info` what stands behind the backticks."""

    page: Path
    line: int
    info: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        """The first word of `info`; empty where there is none."""
        return self.info[0] if self.info else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that the documentation shows. `whole`: from a code block, so complete as printed."""

    where: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def pages() -> list[Path]:
    """The pages of the root, and every page below docs/, those that `make docs` generates among them."""
    root = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*root, *sorted({*(ROOT / "docs").rglob("*.md"), *_GENERATED})]


@cache
def text_of(page: Path) -> str:
    """The page's text; a generated page is generated, and never read from a file that may be old."""
    make = _GENERATED.get(page)
    return page.read_text() if make is None else make()


def exists(target: Path) -> bool:
    """Whether a link may lead there: a file or folder, or a page that `make docs` generates."""
    return target in _GENERATED or target.exists()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced code blocks of a page."""
    text = text_of(page)
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, tuple(match["info"].split()), match["text"])


def prose(page: Path) -> str:
    """The page without its code blocks and comments."""
    return _COMMENT.sub("", _FENCE.sub("", text_of(page)))


def links(page: Path) -> Iterator[str]:
    """The targets of links and pictures that lead to other files of the repository or to headings."""
    for match in _LINK.finditer(_SPAN.sub("", prose(page))):
        target = match["target"] or match["html"]
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The fragments under which GitHub makes the page's headings reachable."""
    found = set()
    for match in _HEADING.finditer(prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"]).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def commands(program: str) -> Iterator[Command]:
    """Every command line of the pages that runs `program`, from shell blocks and from inline code."""
    for page in pages():
        for block in blocks(page):
            if block.language in _SHELL:
                for line in _lines(block):
                    yield from _command(program, line, str(block), whole=True)
        for span in _SPAN.findall(prose(page)):
            yield from _command(program, span, str(page.relative_to(ROOT)), whole=False)


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row whose first cell is inline code; the code marks are taken off the first cell."""
    found = []
    for line in prose(page).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and (match := re.fullmatch(r"`([^`]+)`", cells[0])):
            found.append([match[1], *cells[1:]])
    return found


def code_words(cell: str) -> list[str]:
    """The inline code in a table's cell."""
    return _SPAN.findall(cell)


def _lines(block: Block) -> Iterator[str]:
    """The command lines: in a `console` block those after a prompt, elsewhere all. Continued lines are joined."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        stripped = line.strip()
        if block.language != "console":
            yield stripped
        elif stripped.startswith(("$ ", "# ")):
            yield stripped[2:]


def _command(program: str, line: str, where: str, *, whole: bool) -> Iterator[Command]:
    if program not in line or "..." in line or "…" in line:
        return
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if words[:1] == ["sudo"]:
        words = words[3:] if words[1:2] == ["-u"] else words[1:]
    if not words or words[0].rpartition("/")[2] != program:
        return
    rest = words[1:]
    end = next((index for index, word in enumerate(rest) if word in _ENDS), len(rest))
    yield Command(where, tuple(rest[:end]), whole)
