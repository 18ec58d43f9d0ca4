"""One run, told four ways."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec
import pytest
from rich.console import Console
from tests.witness.check.conftest import OpenSession, report_of
from tests.witness.check.honest_proxy import SECRET
from tests.witness.check.wrong_proxies import MetadataNotBound

from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.check.finding import Result, Verdict
from holdfast.witness.check.latency import Summary
from holdfast.witness.check.load.control import BUCKETS
from holdfast.witness.check.load.outcome import LoadOutcome, Step
from holdfast.witness.check.report.document import document
from holdfast.witness.check.report.html import html
from holdfast.witness.check.report.junit import junit
from holdfast.witness.check.report.terminal import show
from holdfast.witness.check.run import Fitness, Report

pytestmark = pytest.mark.server
_NASTY = "<script>alert('x')</script> & \x1b[31m \x00"


@pytest.fixture
def report(open_session: OpenSession) -> Report:
    """A run with a failure, a load, and evidence that tries to break out."""
    with open_session(MetadataNotBound()) as session:
        made = report_of(session, "CONF", "DEC-07", "LAT")
    results = tuple(
        replace(result, evidence=_NASTY) if result.verdict is Verdict.FAIL else result for result in made.results
    )
    return replace(made, results=results, load=LoadOutcome(200, (step(100), step(200, p999=0.4)), 1, 25))


def step(rate: int, p999: float = 0.02, errors: dict[str, int] | None = None, late: int = 0) -> Step:
    """A second at `rate`; `late` answers came after 250 ms, which a `p999` above it means for one in a hundred."""
    counts = [0] * (len(BUCKETS) + 1)
    counts[10] = rate
    summary = Summary(rate, 0.003, 0.005, 0.01, p999, p999)
    succeeded = rate - sum((errors or {}).values())
    in_time = succeeded - (late or (p999 > 0.25) * (rate // 100))
    return Step(rate, 1.0, rate, succeeded, in_time, summary, tuple(counts), errors or {}, 0.001, 9, 9)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_is_one_file_without_scripts_or_links(report: Report) -> None:
    page = _Page()
    page.feed(html(report))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "srcset", "onload"} & {name for name, _ in page.attributes}
    assert "url(" not in html(report)
    assert page.tags.count("svg") == 5


def test_the_page_names_every_check_and_its_verdict(report: Report) -> None:
    text = html(report)
    assert all(result.check.id in text for result in report.results)
    assert "Not fit for AWS KMS: 1 check failed." in text


def test_every_report_says_what_was_found_and_what_to_do(report: Report) -> None:
    out = io.StringIO()
    show(report, Console(file=out, width=200))
    for text in (html(report), junit(report).decode(), repr(document(report)), out.getvalue()):
        assert "Changed ciphertext metadata is accepted" in text
        assert "Bind the ciphertext metadata into the AAD." in text


def test_failures_come_before_warnings_and_the_conclusion_last(report: Report) -> None:
    out = io.StringIO()
    results = tuple(
        replace(result, verdict=Verdict.WARN) if result.check.id == "CONF-02" else result for result in report.results
    )
    show(replace(report, results=results), Console(file=out, width=80))
    complaints = [
        line.split()[:2] for line in out.getvalue().splitlines() if re.match(r"(fail|waived|warn) \w", line)
    ]
    assert complaints == [["fail", "DEC-07"], ["waived", "CONF-04"], ["warn", "CONF-02"]]


def test_junit_counts_what_it_lists_and_survives_control_characters(report: Report) -> None:
    suite = ET.fromstring(junit(report)).find("testsuite")  # noqa: S314 (written by the line before)
    assert suite is not None
    assert len(suite.findall("testcase")) == int(suite.attrib["tests"]) == len(report.results) + 1
    assert len(suite.findall(".//failure")) == int(suite.attrib["failures"]) == 2
    assert len(suite.findall(".//skipped")) == int(suite.attrib["skipped"])


def test_the_json_document_holds_verdict_source_and_latency(report: Report) -> None:
    value = msgspec.json.decode(msgspec.json.encode(document(report)))
    failed = [check for check in value["checks"] if check["verdict"] == "fail"]
    assert [check["id"] for check in failed] == ["DEC-07"]
    assert failed[0]["source"]["section"] == "Decrypt"
    assert value["fit"] is False
    assert value["latency"]["keptConnection"]["count"] == 20
    assert value["load"]["carried"] == 100


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_terminal_report_keeps_to_its_width(report: Report, width: int) -> None:
    out = io.StringIO()
    show(report, Console(file=out, width=width))
    assert "DEC-07" in out.getvalue()
    assert max(len(line) for line in out.getvalue().splitlines()) <= width


def test_no_report_holds_the_secret(report: Report) -> None:
    out = io.StringIO()
    show(report, Console(file=out, width=100))
    texts = (html(report), junit(report).decode(), repr(document(report)), out.getvalue(), repr(report))
    assert not any(SECRET in text for text in texts)


def _with(report: Report, **verdicts: Verdict) -> Report:
    results = (
        Result(check, verdicts.get(check.id.replace("-", "_"), Verdict.PASS), "evidence", 0.0) for check in CATALOGUE
    )
    return replace(report, load=None, results=tuple(results))


def test_fitness_follows_the_verdicts(report: Report) -> None:
    assert _with(report).fitness is Fitness.FIT
    assert _with(report, CONF_04=Verdict.WAIVED).fitness is Fitness.FIT
    assert "Fit for AWS KMS" not in _with(report, CONF_04=Verdict.WAIVED).conclusion
    assert _with(report, CONF_04=Verdict.FAIL).fitness is Fitness.NOT_FIT
    assert _with(report, HEALTH_01=Verdict.FAIL).fitness is Fitness.NOT_JUDGED
    assert replace(_with(report), load=LoadOutcome(200, (step(200, p999=0.4),), 1, 1)).fitness is Fitness.NOT_FIT


def test_without_a_key_the_conclusion_asks_for_one(report: Report) -> None:
    assert "--key" in _with(report, ENC_01=Verdict.SKIP).conclusion
    assert re.match("Fit for AWS KMS", _with(report).conclusion)


def test_a_choice_of_checks_does_not_make_an_endpoint_fit(report: Report) -> None:
    whole = _with(report)
    assert "chosen" in replace(whole, results=whole.results[:20]).conclusion
