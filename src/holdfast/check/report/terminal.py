"""The report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from holdfast.check.checks import GROUPS
from holdfast.check.finding import Verdict
from holdfast.check.latency import ADVISED_RTT, KMS_TIMEOUT, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType

    from holdfast.check.finding import Result
    from holdfast.check.latency import Measurement
    from holdfast.check.load.outcome import LoadOutcome, Step
    from holdfast.check.run import Report

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.WARN: "yellow", Verdict.SKIP: "dim"}


def show(report: Report, console: Console) -> None:
    """Everything: checks by group, the latency, the load, what failed with its source, and the conclusion."""
    console.print(Text(f"{report.url}{report.uri_path}", style="bold"))
    console.print(
        Text(f"{report.address or 'no address'}, seen from {report.place}, {report.started:%Y-%m-%d %H:%M} UTC")
    )
    console.print(_checks(report))
    if report.measurement is not None:
        console.print(_latency(report.measurement))
    if report.load is not None:
        console.print(_load(report.load))
    for complaint in _complaints(report):
        console.print(complaint)
    counts = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in Verdict if report.count(verdict))
    style = "bold green" if report.fit else "bold red"
    console.print(Text(report.conclusion, style=style), Text(f"({counts})", style="dim"))


def _checks(report: Report) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    # A word that is longer than the column goes on in the next line; none is cut off.
    table.add_column(ratio=1, style="dim", overflow="fold")
    group = ""
    for result in report.results:
        if result.check.group != group:
            group = result.check.group
            table.add_row("", "", Text(GROUPS[group], style="bold underline"), "")
        table.add_row(
            Text(result.verdict, style=STYLES[result.verdict]),
            result.check.id,
            Text(result.check.title),
            Text(result.evidence),
        )
    return table


def _latency(measurement: Measurement) -> RenderableType:
    table = _table(
        f"Latency of {measurement.operation} in ms, against {KMS_TIMEOUT * 1000:.0f} ms",
        ("", "n", "p50", "p95", "p99", "max"),
    )
    rows = {
        "DNS": [measurement.dns],
        f"TCP handshake (advised: {ADVISED_RTT * 1000:.0f} ms)": measurement.tcp,
        "TLS handshake": measurement.tls,
        "first byte": measurement.first_byte,
        "whole call, new connection": measurement.whole,
        "whole call, kept connection": measurement.reused,
    }
    for name, values in rows.items():
        summary = Summary.of(values)
        cells = (summary.p50, summary.p95, summary.p99, summary.maximum)
        table.add_row(name, str(summary.count), *(f"{value * 1000:.1f}" for value in cells))
    return table


def _load(load: LoadOutcome) -> RenderableType:
    table = _table(
        f"Load: Encrypt with CDIV and Decrypt in turn, {load.connections} connections, latency in ms",
        ("requests/s", "s", "answered 200", "p50", "p99", "p99.9", "max", "errors", "fits"),
    )
    for step in sorted(load.steps, key=lambda step: step.rate):
        table.add_row(*_step_cells(step), style="" if step.fits else "red")
    return Group(table, *(Text(sentence) for sentence in load.sentences))


def _step_cells(step: Step) -> tuple[str, ...]:
    summary = step.latency
    times = ("-",) * 4 if summary is None else (summary.p50, summary.p99, summary.p999, summary.maximum)
    return (
        f"{step.rate:,}",
        f"{step.seconds:g}",
        f"{step.succeeded:,} of {step.sent:,}",
        *(value if isinstance(value, str) else f"{value * 1000:.1f}" for value in times),
        ", ".join(f"{count} {name}" for name, count in step.errors.items()) or "none",
        "yes" if step.fits else "no",
    )


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or column == "errors" else "right")
    return table


def _complaints(report: Report) -> list[RenderableType]:
    return [
        _complaint(result)
        for verdict in (Verdict.FAIL, Verdict.WARN)
        for result in report.results
        if result.verdict is verdict
    ]


def _complaint(result: Result) -> RenderableType:
    check, source = result.check, result.check.source
    title = Text.assemble((f"{result.verdict} ", STYLES[result.verdict]), (f"{check.id} {check.title}", "bold"))
    rows = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
    rows.add_column(no_wrap=True, style="dim")
    rows.add_column(overflow="fold")
    rows.add_row("found", Text(result.evidence))
    rows.add_row("how", Text(check.what_it_does))
    rows.add_row("source", Text(f"{source.document}, {source.section} ({check.level}): {source.plain}"))
    return Group(title, rows, Text())
