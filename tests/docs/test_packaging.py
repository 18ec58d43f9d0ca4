"""The systemd unit permits what the proxy does."""

import re

from tests.docs.pages import ROOT

_UNIT = (ROOT / "packaging/holdfast.service").read_text()


def _settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", _UNIT, re.MULTILINE)


def test_a_worker_may_bind_itself_to_a_cpu() -> None:
    """`sched_setaffinity` belongs to @resources, which an earlier line of the filter takes away."""
    filters = _settings("SystemCallFilter")
    taken = next(number for number, line in enumerate(filters) if line.startswith("~") and "@resources" in line)
    assert "sched_setaffinity" in filters[taken + 1 :]


def test_port_443_without_root() -> None:
    assert _settings("AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert _settings("CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert _settings("User") == ["holdfast"]


def test_the_credential_that_the_unit_loads_is_the_one_that_the_examples_name() -> None:
    """Else a copied example does not start under the unit."""
    loaded = {line.partition(":")[0] for line in _settings("LoadCredential")}
    for example in (ROOT / "examples").glob("*.toml"):
        named = set(re.findall(r'pin = \{ credential = "([^"]+)"', example.read_text()))
        assert named <= loaded, example.name
