"""The specification's requirements and what shows them, from requirements.toml; and their page."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.backends import BACKENDS

_FILE = Path(__file__).with_name("requirements.toml")

_HEAD = """# Conformance

Every MUST, REQUIRED and SHOULD of the [XKS Proxy API Specification](https://github.com/aws/aws-kms-xksproxy-api-spec)
1.0.3 that concerns a proxy, with what shows it. A rule such as `CDIV-02` is a [check](conformance-checks.md) of
`holdfast check`, which `tests/conformance/test_wire.py` makes against running servers on each module below; the rest
are pytest functions. Departures have their reasons in [spec divergences](../spec-divergences.md).

"""


@dataclass(frozen=True)
class Requirement:
    """One sentence of the specification, and what shows it; `missing` says why nothing does, or not all of it."""

    number: int
    section: str
    quote: str
    checks: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    missing: str | None = None


def requirements() -> list[Requirement]:
    """The file's entries, numbered in their order."""
    document = tomllib.loads(_FILE.read_text())
    return [
        Requirement(
            number,
            entry.pop("section"),
            entry.pop("quote"),
            tuple(entry.pop("checks", ())),
            tuple(entry.pop("tests", ())),
            **entry,
        )
        for number, entry in enumerate(document["requirement"], 1)
    ]


def page() -> str:
    """docs/reference/conformance.md."""
    lines = ["| # | Section | The specification says | Shown by |", "|---|---|---|---|"]
    lines += [
        f"| {each.number} | {each.section} | {_escaped(each.quote)} | {_evidence(each)} |" for each in requirements()
    ]
    modules = ["", "## Modules and their known gaps", "", "| Module | Rule | Why it is not passed |", "|---|---|---|"]
    modules += [
        f"| {backend.title} | `{rule}` | {why} |" for backend in BACKENDS for rule, why in backend.known_gaps.items()
    ]
    return _HEAD + "\n".join(lines + modules) + "\n"


def _evidence(requirement: Requirement) -> str:
    checks = ", ".join(f"`{check}`" for check in requirement.checks)
    tests = [f"`{test.removeprefix('tests/')}`" for test in requirement.tests]
    words = [] if requirement.missing is None else [_escaped(requirement.missing)]
    return "<br>".join(([checks] if checks else []) + tests + words)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
