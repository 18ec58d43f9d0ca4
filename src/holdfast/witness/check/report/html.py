"""The report as one HTML page without scripts, fonts or links to anything: fit to be mailed."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

from holdfast.witness.check.checks import GROUPS
from holdfast.witness.check.finding import Verdict
from holdfast.witness.check.latency import KMS_TIMEOUT, Summary
from holdfast.witness.check.load.control import BUCKETS
from holdfast.witness.check.report import plots

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.witness.check.finding import Result
    from holdfast.witness.check.latency import Measurement
    from holdfast.witness.check.load.outcome import LoadOutcome, Step
    from holdfast.witness.check.run import Report

_LIMITS = (
    "A client sees answers, not the inside. Not shown here: whether a trial decrypt precedes every CDIV and the "
    "CDIV precedes it (only an encrypt-only key betrays its absence), how deep the health check goes while the HSM "
    "works, what is logged, whether two credentials can be live at once, whether mutual TLS refuses another subject "
    "of the right authority, whether keys leave the HSM, and the way between AWS and this endpoint. Nothing that was "
    "sent can change or harm a key."
)


def html(report: Report) -> str:
    """The whole page."""
    style = files("holdfast.witness.check.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(
        (
            _head(report),
            _section("Failures", _complaints(report, Verdict.FAIL)),
            _section("Violated, and waived by --local", _complaints(report, Verdict.WAIVED)),
            _section("Warnings", _complaints(report, Verdict.WARN)),
            _latency(report.measurement) if report.measurement else "",
            _load(report.load) if report.load else "",
            _all_checks(report),
            _section("What this cannot show", f"<p>{escape(_LIMITS)}</p>"),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>XKS endpoint check: "
        f"{escape(report.url)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _head(report: Report) -> str:
    facts = {
        "Endpoint": report.url,
        "URI path": report.uri_path,
        "Address": report.address or "none",
        "Seen from": report.place,
        "When": f"{report.started:%Y-%m-%d %H:%M:%S} UTC, {report.seconds:.1f}\u00a0s",
        "Made by": f"holdfast check {report.version}, after the XKS Proxy API specification v1.0.3",
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    counts = "".join(
        f'<span class="{verdict}"><b>{report.count(verdict)}</b> {verdict}</span>'
        for verdict in Verdict
        if report.count(verdict)
    )
    tone = Verdict.FAIL if not report.fit else Verdict.WARN if report.count(Verdict.WAIVED) else Verdict.PASS
    return (
        "<h1>Is this XKS endpoint fit for AWS KMS?</h1>"
        f'<p class="conclusion {tone}">{escape(report.conclusion)}</p><div '
        f'class="counts">{counts}</div><dl>{rows}</dl>'
    )


def _section(title: str, inner: str) -> str:
    return f"<h2>{escape(title)}</h2>{inner}" if inner else ""


def _complaints(report: Report, verdict: Verdict) -> str:
    return _checks((result for result in report.results if result.verdict is verdict), opened=True)


def _all_checks(report: Report) -> str:
    groups = groupby(report.results, key=lambda result: result.check.group)
    return "".join(_section(GROUPS[name], _checks(results, opened=False)) for name, results in groups)


def _checks(results: Iterable[Result], *, opened: bool) -> str:
    return "".join(_check(result, opened=opened) for result in results)


def _check(result: Result, *, opened: bool) -> str:
    check, source = result.check, result.check.source
    remedy = f"<p><b>What to do:</b> {escape(check.remedy)}</p>" if result.violated else ""
    return (
        f'<details class="check {result.verdict}"{" open" if opened else ""}><summary>'
        f'<span class="verdict">{result.verdict}</span><span class="id">{check.id}</span>'
        f'<span class="title">{escape(result.title)}</span><span '
        f'class="evidence">{escape(result.evidence)}</span></summary>'
        f'{remedy}<p class="dim">How it was checked: {escape(check.what_it_does)}</p>'
        f"<blockquote>{escape(source.plain)}</blockquote>"
        f'<p class="dim">{escape(source.document)}, {escape(source.section)} · {check.level}</p></details>'
    )


def _latency(measurement: Measurement) -> str:
    medians = [
        (name, css, Summary.of(values).p50)
        for name, css, values in (
            ("DNS", "d", [measurement.dns]),
            ("TCP", "b", measurement.tcp),
            ("TLS", "c", measurement.tls),
            ("call", "a", measurement.first_byte),
        )
    ]
    kept = f"{len(measurement.reused)} {measurement.operation} calls on a kept connection"
    drawn = (
        _plot("A call on a new connection, medians", plots.budget_bar(medians, "parts of a call"), wide=True),
        _plot(kept, plots.percentile_curve(measurement.reused, "latency percentiles")),
        _plot("How long they took", plots.histogram(measurement.reused, "latency histogram")),
    )
    rows = "".join(
        _row(name, Summary.of(values))
        for name, values in (
            ("TCP handshake", measurement.tcp),
            ("TLS handshake", measurement.tls),
            ("new connection, whole", measurement.whole),
            ("kept connection", measurement.reused),
        )
    )
    table = (
        '<div class="scroll"><table><tr><th>ms</th><th>n</th><th>p50</th><th>p95</th><th>p99</th><th>max</th></tr>'
        f"{rows}</table></div>"
    )
    note = (
        f"<p>KMS gives up after {KMS_TIMEOUT * 1000:.0f} ms, connection included where it needs a new one. Measured "
        "from the machine named above: KMS will see its own distance.</p>"
    )
    return _section("Latency", f'{note}<div class="plots">{"".join(drawn)}</div>{table}')


def _row(name: str, summary: Summary) -> str:
    cells = "".join(
        f"<td>{value * 1000:.1f}</td>" for value in (summary.p50, summary.p95, summary.p99, summary.maximum)
    )
    return f"<tr><td>{escape(name)}</td><td>{summary.count}</td>{cells}</tr>"


def _load(load: LoadOutcome) -> str:
    steps = sorted(load.steps, key=lambda step: step.rate)
    answered = [(step.rate, step.latency) for step in steps if step.latency is not None]
    drawn = ""
    if answered:
        series = [
            plots.Series(name, css, tuple((float(rate), getattr(summary, field)) for rate, summary in answered))
            for name, css, field in (("p50", "d", "p50"), ("p99", "a", "p99"), ("p99.9", "b", "p999"))
        ]
        largest = max(steps, key=lambda step: step.succeeded)
        drawn = _plot("Latency over rate", plots.load_curve(series, "latency over rate")) + _plot(
            f"How long calls took at {largest.rate:,} requests/s",
            plots.bars(largest.histogram, BUCKETS, "latency histogram under load"),
        )
    rows = "".join(_step(step) for step in steps)
    table = (
        '<div class="scroll"><table><tr><th>requests/s</th><th>fits</th><th>p50</th><th>p99</th><th>p99.9</th>'
        f"<th>max</th><th>answered 200</th><th>s</th></tr>{rows}</table></div>"
    )
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in load.sentences)
    how = (
        f'<p class="dim">Open loop: Encrypt with a CDIV and Decrypt in turn, sent at fixed times over up to '
        f"{load.connections} kept connections by {_processes(load.processes)}; latency counts from the intended "
        "sending time. A rate fits if 99.9 % of its requests were answered 200 within 250 ms.</p>"
    )
    return _section("Load", f'{words}<div class="plots">{drawn}</div>{table}{_errors(steps)}{how}')


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _step(step: Step) -> str:
    summary = step.latency
    times = (None,) * 4 if summary is None else (summary.p50, summary.p99, summary.p999, summary.maximum)
    cells = "".join("<td>-</td>" if value is None else f"<td>{value * 1000:.1f}</td>" for value in times)
    return (
        f"<tr><td>{step.rate:,}</td><td>{'yes' if step.fits else 'no'}</td>{cells}"
        f"<td>{step.succeeded:,} of {step.sent:,}</td><td>{step.seconds:g}</td></tr>"
    )


def _errors(steps: list[Step]) -> str:
    items = [
        f"<li>{step.rate:,}/s: {count:,} {escape(name)}</li>" for step in steps for name, count in step.errors.items()
    ]
    return f"<p>Errors:</p><ul>{''.join(items)}</ul>" if items else "<p>No errors.</p>"


def _plot(title: str, drawing: str, *, wide: bool = False) -> str:
    return f'<div class="plot{" wide" if wide else ""}"><h3>{escape(title)}</h3>{drawing}</div>'
