"""The dashboard and the alert rules ask for what Holdfast offers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from tests.docs.metrics import families, series
from tests.docs.pages import ROOT
from tests.waiting import PATIENCE

_DASHBOARD = ROOT / "observability/grafana-dashboard.json"
_RULES = ROOT / "observability/alert-rules.yaml"
_RULE_TESTS = ROOT / "tests/docs/alert-rules-test.yaml"
_NAME = re.compile(r"\bholdfast_[a-z_]+")
_VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*", "$keystore": ".*"}


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]  # noqa: TID251 (our own file)
    return panels


def _queries() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel.get("targets", [])]


@pytest.mark.parametrize("file", [_DASHBOARD, _RULES], ids=lambda file: file.name)
def test_every_metric_that_is_asked_for_exists(file: Path) -> None:
    """A renamed metric would leave a panel empty and an alert silent."""
    text = (
        _DASHBOARD.read_text()
        if file == _DASHBOARD
        else re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE)
    )
    asked = set(_NAME.findall(text))
    assert asked
    assert not asked - series()


def test_every_metric_is_on_the_dashboard_or_named_as_left_out() -> None:
    """What is worth offering is worth looking at."""
    left_out = {"holdfast_hsm_module_epoch", "holdfast_hsm_decryptions", "holdfast_hsm_encryptions"}
    shown = set(_NAME.findall(" ".join(_queries())))
    missing = {name for name in families() if not any(one.startswith(name) for one in shown)}
    assert missing == left_out


def test_panels_do_not_overlap() -> None:
    """Every panel has a number and a place of its own."""
    panels = _panels()
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_every_alert_says_what_to_do() -> None:
    """An alert has a severity, a summary, a description and a page."""
    text = _RULES.read_text()
    alerts = re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert:|\Z)", text, re.DOTALL)
    assert len(alerts) > 10
    for name, body in alerts:
        for word in ("severity:", "summary:", "description:"):
            assert word in body, name


def _promtool() -> str:
    beside = Path(sys.executable).with_name("promtool")  # where `make develop` puts it
    found = shutil.which("promtool") or shutil.which(beside)
    if found is None:
        assert not os.environ.get("CI"), "CI has promtool, so that these tests are never left out unseen"
        pytest.skip("promtool is not installed: `make develop` unpacks it from Debian's package")
    return found


@pytest.mark.programs
def test_alert_rules_parse() -> None:
    """Prometheus itself accepts the rules."""
    _run([_promtool(), "check", "rules", str(_RULES)])


@pytest.mark.programs
def test_alerts_fire_when_they_should() -> None:
    """Prometheus's own rule tests: series that must raise an alert, and series that must not."""
    _run([_promtool(), "test", "rules", str(_RULE_TESTS)])


def test_every_alert_is_made_to_fire() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", _RULES.read_text()))
    assert alerts - set(re.findall(r"alertname[:=] ?\"?(\w+)", _RULE_TESTS.read_text())) == set()


@pytest.mark.programs
def test_dashboard_queries_parse(tmp_path: Path) -> None:
    """Each query of the dashboard is PromQL, once Grafana has filled in its variables."""
    rules = ["groups:", "  - name: dashboard", "    rules:"]
    for number, query in enumerate(_queries()):
        for variable, value in _VARIABLES.items():
            query = query.replace(variable, value)  # noqa: PLW2901 (one after the other)
        rules += [f"      - record: query_{number}", f"        expr: {json.dumps(query)}"]
    file = tmp_path / "queries.yaml"
    file.write_text("\n".join(rules) + "\n")
    _run([_promtool(), "check", "rules", str(file)])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
