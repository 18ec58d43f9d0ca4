"""Finds the line of every key in a TOML document, which tomllib does not give.

The document is known to be valid TOML: tomllib has read it. So only as much of the grammar is here as is needed to
distinguish keys from values (TOML 1.0.0, "Keys", "Table", "Array of Tables", "Inline Table").
"""

import re
import tomllib

Path = tuple[str | int, ...]
"""From the top: names of tables and keys, and indices in arrays."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]*")


def lines_of(document: str) -> dict[Path, int]:
    """The line, from 1, on which each table and each key of a valid document first stands."""
    return _Scanner(document.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}
        """The number of elements seen of each array of tables."""

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._found

    def _header(self) -> Path:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path: Path = ()
        names = self._key()
        for position, name in enumerate(names):
            path = (*path, name)
            self._note(path)
            if is_array and position == len(names) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
                self._note(path)
        self._at += 2 if is_array else 1
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for name in self._key():
            path = (*path, name)
            self._note(path)
        self._at += 1  # the equals sign
        self._skip(re.compile(r"[ \t]*"))
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._text[self._at : self._at + 1]:
            case "{":
                self._inline_table(path)
            case "[":
                self._array(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_PLAIN)

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._skip(_BLANK)
        while not self._text.startswith("}", self._at):
            self._pair(path)
            self._separator()
        self._at += 1

    def _array(self, path: Path) -> None:
        self._at += 1
        self._skip(_BLANK)
        index = 0
        while not self._text.startswith("]", self._at):
            self._note((*path, index))
            self._value((*path, index))
            self._separator()
            index += 1
        self._at += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)

    def _key(self) -> list[str]:
        """A dotted key; the cursor then stands on what follows it."""
        names = []
        while True:
            part = _KEY_PART.match(self._text, self._at)
            if part is None:
                raise ValueError(f"no key at offset {self._at} of what should be valid TOML")
            self._at = part.end()
            names.append(_unquoted(part[1]))
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"no value at offset {self._at} of what should be valid TOML")
        self._at = found.end()

    def _note(self, path: Path) -> None:
        self._found.setdefault(path, self._text.count("\n", 0, self._at) + 1)


def _unquoted(part: str) -> str:
    if part.startswith('"'):
        return str(tomllib.loads(f"key = {part}")["key"])
    return part.strip("'")
