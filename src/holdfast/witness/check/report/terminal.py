"""The report for a terminal, or for a file: lines of the width that is asked for."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from holdfast.witness.check.checks import GROUPS
from holdfast.witness.check.finding import Verdict
from holdfast.witness.check.latency import ADVISED_RTT, KMS_TIMEOUT, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from holdfast.witness.check.finding import Result
    from holdfast.witness.check.latency import Measurement
    from holdfast.witness.check.load.outcome import LoadOutcome, Step
    from holdfast.witness.check.run import Report

STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.WAIVED: "yellow",
    Verdict.SKIP: "dim",
}
_VERDICT_WIDTH, _ID_WIDTH = 8, 10


def show(report: Report, console: Console, *, quiet: bool = False) -> None:
    """Checks by group, latency, load; then failures, then warnings, each with its remedy; last the conclusion.

    `quiet` leaves only failures and the conclusion.
    """
    if not quiet:
        _show_run(report, console)
    for verdict in (Verdict.FAIL,) if quiet else (Verdict.FAIL, Verdict.WAIVED, Verdict.WARN):
        for result in report.results:
            if result.verdict is verdict:
                console.print(_complaint(result, console.width))
    counts = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in Verdict if report.count(verdict))
    style = "bold red" if not report.fit else "bold yellow" if report.count(Verdict.WAIVED) else "bold green"
    console.print(Text(report.conclusion, style=style))
    console.print(Text(counts, style="dim"))


def _show_run(report: Report, console: Console) -> None:
    console.print(Text(f"{report.url}{report.uri_path}", style="bold"))
    seen = f"{report.address or 'no address'}, seen from {report.place}, {report.started:%Y-%m-%d %H:%M} UTC"
    console.print(Text(seen))
    group = ""
    for result in report.results:
        if result.check.group != group:
            group = result.check.group
            console.print(Text(f"\n{GROUPS[group]}", style="bold"))
        for line in _line(result, console.width):
            console.print(line)
    console.print()
    if report.measurement is not None:
        console.print(_latency(report.measurement))
    if report.load is not None:
        console.print(_load(report.load))


def _line(result: Result, width: int) -> Iterator[Text]:
    """Verdict, id and title; below it the evidence, which for a failure or warning follows at the end."""
    indent = " " * (_VERDICT_WIDTH + _ID_WIDTH)
    title, *rest = _wrapped(result.title, width - len(indent)) or [""]
    yield Text.assemble(
        (f"{result.verdict:<{_VERDICT_WIDTH}}", STYLES[result.verdict]), f"{result.check.id:<{_ID_WIDTH}}", title
    )
    evidence = [] if result.violated else _wrapped(result.evidence, width - len(indent))
    for text in rest:
        yield Text(f"{indent}{text}")
    for text in evidence:
        yield Text(f"{indent}{text}", style="dim")


def _complaint(result: Result, width: int) -> RenderableType:
    check, source = result.check, result.check.source
    rows = {
        "found": result.evidence,
        "do": check.remedy,
        "how": check.what_it_does,
        "source": f"{source.document}, {source.section} ({check.level}): {source.plain}",
    }
    lines = [Text.assemble((f"{result.verdict} ", STYLES[result.verdict]), (f"{check.id} {result.title}", "bold"))]
    for name, text in rows.items():
        first, *rest = _wrapped(text, width - 9) or [""]
        lines.append(Text.assemble((f"  {name:<7}", "dim"), first))
        lines += [Text(f"{'':<9}{each}") for each in rest]
    return Group(*lines, Text())


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(width, 20))


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
