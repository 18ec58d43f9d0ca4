"""The line of each policy in a Cedar text: the engine reports what is wrong, but not on which line."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r'(?P<blank>\s+|//[^\r\n]*)|"(?:[^"\\]|\\.)*(?:"|\Z)|(?P<end>;)|[^\s"/;]+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy: its text up to its semicolon, and the line on which it begins."""

    line: int
    text: str

    def line_of(self, message: str) -> int:
        """The line of what the message quotes in backticks, if the policy contains it once; else its first line."""
        for quoted in re.findall("`([^`]+)`", message):
            if self.text.count(quoted) == 1:
                return self.line + self.text.count("\n", 0, self.text.index(quoted))
        return self.line


def split(text: str) -> list[Statement]:
    """The policies in their order, without the comments between them. A last one may lack its semicolon."""
    found = []
    start: int | None = None
    for token in _TOKEN.finditer(text):
        if start is None and not token["blank"]:
            start = token.start()
        if start is not None and token["end"]:
            found.append(_statement(text, start, token.end()))
            start = None
    if start is not None:
        found.append(_statement(text, start, len(text)))
    return found


def _statement(text: str, start: int, end: int) -> Statement:
    return Statement(text.count("\n", 0, start) + 1, text[start:end])
