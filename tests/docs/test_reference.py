"""The reference pages on metrics and events name all that exists, and nothing else."""

from contextlib import suppress
from dataclasses import fields
from typing import Any

import msgspec
from tests.docs.metrics import families
from tests.docs.pages import ROOT, code_words, rows

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
