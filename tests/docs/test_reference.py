"""The reference pages on metrics and events name all that exists, and nothing else."""

import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.docs.metrics import families
from tests.docs.pages import ROOT, code_words, pages, rows, text_of
from tests.waiting import PATIENCE

from holdfast.gateway.observe import event_log
from holdfast.hsm.port import HsmGauges
from holdfast.protocols.xks.event import Event
from holdfast.xks.errors import ErrorName

_METRICS = ROOT / "docs/reference/metrics.md"
_EVENTS = ROOT / "docs/reference/events.md"


def test_every_metric_has_a_row_with_its_type_and_labels() -> None:
    """docs/reference/metrics.md and what /metrics answers agree."""
    documented = {row[0]: (row[1], sorted(code_words(row[2]))) for row in rows(_METRICS)}
    assert documented == {name: (family.type, sorted(family.labels)) for name, family in families().items()}


def test_every_gauge_of_an_hsm_is_a_metric() -> None:
    """The names of `holdfast_hsm_*` come from the port's gauges."""
    assert {f"holdfast_hsm_{field.name}" for field in fields(HsmGauges)} <= set(families())


def test_every_event_field_has_a_row() -> None:
    """docs/reference/events.md and the event log's line agree, nested fields included."""
    documented = {row[0] for row in rows(_EVENTS)}
    names = {field.encode_name for field in msgspec.structs.fields(event_log._Line)}
    parts = {f"milliseconds.{field.encode_name}" for field in msgspec.structs.fields(event_log._Milliseconds)}
    assert documented == names | parts


class _Watched(Event):
    """Notes which of its attributes are read."""

    __slots__ = ("read",)
    read: set[str]

    def __getattribute__(self, name: str) -> Any:
        with suppress(AttributeError):  # before the first of them is set
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)


def test_every_part_of_an_event_is_written() -> None:
    """The line of a failed request is made from all that its Event holds."""
    event = _Watched(error=ErrorName.INTERNAL, ckr=0x30, function="C_Encrypt")
    event.read = set()
    event_log._line(event_log.Record(0.0, event, "client"), str, 0)
    assert not {field.name for field in fields(Event)} - event.read


_RECIPES = [
    match for page in pages() for match in re.findall(r"jq -\w+ '[^']+'(?:\s|\\\n)+\S*events\.jsonl", text_of(page))
]


@pytest.mark.programs
@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize("recipe", _RECIPES)
def test_a_recipe_for_the_event_log_goes_on_after_half_a_line(recipe: str, tmp_path: Path) -> None:
    """As a full disk leaves it."""
    (tmp_path / "events.jsonl").write_text('{"half": "a li\n{"operation": "Encrypt"}\n')
    done = subprocess.run(
        ["bash", "-c", re.sub(r"\S*events\.jsonl", "events.jsonl", recipe)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_recipes_are_found() -> None:
    assert len(_RECIPES) >= 6
