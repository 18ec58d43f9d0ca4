"""A check, its verdict and the evidence for it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.witness.check.session import Session


class Level(StrEnum):
    """How binding the sentence behind a check is.

    A violation of MUST (and of KMS: what KMS demands or relies on although the spec has no keyword for it) is a
    failure, always; of SHOULD, and of ADVICE (sound practice that follows from the spec's text), a warning.
    """

    MUST = "MUST"
    KMS = "KMS"
    SHOULD = "SHOULD"
    ADVICE = "ADVICE"


class Verdict(StrEnum):
    """What a check found.

    WAIVED: KMS would refuse this, but by --local the endpoint is not for KMS. SKIP: nothing was judged, and the
    evidence says why.
    """

    PASS = "pass"  # noqa: S105 (a verdict)
    FAIL = "fail"
    WARN = "warn"
    WAIVED = "waived"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a check comes from: a document, its section, and a sentence of it."""

    section: str
    sentence: str
    document: str = "XKS Proxy API v1.0.3"

    @property
    def plain(self) -> str:
        """The sentence without the marks of its document's Markdown."""
        unlinked = re.sub(r"\[([^]]*)\](?:\([^)]*\))?", r"\1", self.sentence)
        unbroken = re.sub(r"<br>|\s+", " ", unlinked)
        return unbroken.replace("**", "").replace("`", "").replace("\\_", "_")


def guide(section: str, statement: str) -> Source:
    """A rule that stands in AWS's KMS developer guide only, given in our words."""
    return Source(section, statement, document="AWS KMS Developer Guide")


class Finding(Exception):
    """Ends a check other than by a pass. Holds the evidence."""

    def __init__(self, evidence: str) -> None:
        super().__init__(evidence)
        self.evidence = evidence


class Refuted(Finding):
    """The endpoint did what the check forbids."""


class NotForKms(Refuted):
    """What no endpoint on a developer's machine can satisfy: name, port, public authority. --local waives it."""


class NotJudged(Finding):
    """The check could not be made here."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a client can observe. `run` returns evidence or raises a Finding.

    `needs` are ids of checks that must not have failed or been skipped, so that one mistake of the endpoint is
    reported once, by the check meant for it.
    """

    id: str
    title: str
    level: Level
    source: Source
    run: Callable[[Session], str]
    needs: tuple[str, ...]

    @property
    def violation(self) -> str:
        """The title of a failure or warning: what was found."""
        return _VIOLATIONS[self.id][0]

    @property
    def remedy(self) -> str:
        """What to do about a failure or warning."""
        return _VIOLATIONS[self.id][1]

    @property
    def group(self) -> str:
        """The part of the id before the number."""
        return self.id.split("-", 1)[0]

    @property
    def what_it_does(self) -> str:
        """The docstring of the function."""
        return " ".join((self.run.__doc__ or "").split())


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check. `seconds` is how long it took.

    Evidence quotes answers of the endpoint. Control characters in it, which could steer a terminal, become `?`.
    """

    check: Check
    verdict: Verdict
    evidence: str
    seconds: float

    @property
    def violated(self) -> bool:
        """Whether the endpoint did not do what the check asks for."""
        return self.verdict in (Verdict.FAIL, Verdict.WARN, Verdict.WAIVED)

    @property
    def title(self) -> str:
        """The check's title, or what was found instead."""
        return self.check.violation if self.violated else self.check.title

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", printable(self.evidence))


_VIOLATIONS: dict[str, list[str]] = tomllib.loads(
    files("holdfast.witness.check").joinpath("violations.toml").read_text(encoding="utf-8")
)
"""By check id: what a violation is called, and what to do about it."""


def printable(text: str) -> str:
    """`text` on one line without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def check(
    check_id: str, title: str, *, level: Level, source: Source, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Session], str]], Check]:
    """Turns a function into a Check."""

    def wrap(run: Callable[[Session], str]) -> Check:
        return Check(check_id, title, level, source, run, needs)

    return wrap
