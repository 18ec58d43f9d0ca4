"""The reference pages on metrics and events name all that exists, and nothing else."""

from dataclasses import fields

import msgspec
from tests.docs.metrics import families
from tests.docs.pages import ROOT, code_words, rows

from holdfast.ekm.port import HsmGauges
from holdfast.operations.event import Event
from holdfast.proxy import event_log

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


def test_every_part_of_an_event_is_written() -> None:
    """No field of an Event is forgotten by the page: a new one has to be placed here, in the line and in the page."""
    assert {field.name for field in fields(Event)} == {
        "operation", "keystore", "external_key_id", "generation", "access_key_id", "metadata", "status", "error",
        "detail", "policies", "function", "ckr", "bytes_in", "bytes_out", "authentication", "total", "timing",
    }  # fmt: skip
