"""The report as JUnit XML, which every CI system shows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from holdfast.witness.check.finding import Verdict

if TYPE_CHECKING:
    from holdfast.witness.check.finding import Result
    from holdfast.witness.check.run import Report


def junit(report: Report) -> bytes:
    """One test suite; a failure is a failed case, a warning a passed one with its evidence on system-out."""
    suite = ET.Element(
        "testsuite",
        name=f"holdfast check {report.url}",
        tests=str(len(report.results)),
        failures=str(report.count(Verdict.FAIL)),
        errors="0",
        skipped=str(report.count(Verdict.SKIP) + report.count(Verdict.WAIVED)),
        time=f"{report.seconds:.3f}",
        timestamp=report.started.replace(tzinfo=None).isoformat(timespec="seconds"),
    )
    for result in report.results:
        suite.append(_case(result))
    if report.load is not None:
        case = ET.SubElement(
            suite, "testcase", classname="LOAD", name=f"LOAD {report.load.asked} requests/s", time="0"
        )
        words = " ".join(report.load.sentences)
        if report.load.fits:
            ET.SubElement(case, "system-out").text = words
        else:
            ET.SubElement(case, "failure", message="the load was not carried").text = words
        suite.set("tests", str(len(report.results) + 1))
        suite.set("failures", str(report.count(Verdict.FAIL) + (not report.load.fits)))
    root = ET.Element("testsuites")
    root.append(suite)
    octets: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return octets


def _case(result: Result) -> ET.Element:
    check = result.check
    case = ET.Element(
        "testcase", classname=check.group, name=f"{check.id} {check.title}", time=f"{result.seconds:.3f}"
    )
    evidence = result.evidence
    remedy = f"{check.violation}. {check.remedy}\n" if result.violated else ""
    quoted = f"{evidence}\n{remedy}{check.source.document}, {check.source.section}: {check.source.plain}"
    match result.verdict:
        case Verdict.FAIL:
            ET.SubElement(case, "failure", message=evidence, type=check.level).text = quoted
        case Verdict.SKIP | Verdict.WAIVED:
            ET.SubElement(case, "skipped", message=evidence)
        case Verdict.WARN:
            ET.SubElement(case, "system-out").text = f"warning: {quoted}"
        case Verdict.PASS:
            ET.SubElement(case, "system-out").text = evidence
    return case
