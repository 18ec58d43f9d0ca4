"""`[outlet.NAME]`: where messages may go, and what is refused with which word."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tests.config.test_load import FILE, SMALLEST, problems

from holdfast.config.errors import ConfigurationError
from holdfast.config.load import load, parse
from holdfast.config.outlets import Events, Format


def with_outlets(**outlets: Any) -> str:
    return tomli_w.dumps({**SMALLEST, "outlet": outlets})


def test_an_outlet_has_defaults_and_paths_beside_the_file() -> None:
    configuration = parse(with_outlets(siem={"to": "tls://siem.example:6514", "ca": "ca.pem"}), FILE)
    outlet = configuration.outlets["siem"]
    assert (str(outlet.to), outlet.format, outlet.events, outlet.changes) == (
        "tls://siem.example:6514",
        Format.JSON,
        Events.ALL,
        True,
    )
    assert outlet.files == {"ca": FILE.parent / "ca.pem"}


def test_without_outlets_there_are_none() -> None:
    assert parse(tomli_w.dumps(SMALLEST), FILE).outlets == {}


@pytest.mark.parametrize(
    "to",
    [
        "tcp://127.0.0.1:601",
        "udp://[2001:db8::1]:514",
        "unix:///dev/log",
        "otlp+http://localhost:4318/v1/logs",
        "otlp+https://otel.example:443/x/y",
    ],
)
def test_a_destination_is_written_as_it_was_read(to: str) -> None:
    assert str(parse(with_outlets(a={"to": to}), FILE).outlets["a"].to) == to


@pytest.mark.parametrize(
    ("outlet", "text"),
    [
        ({}, "`to` in [outlet.a] is missing"),
        ({"to": "siem:514"}, "`to` in [outlet.a] must be tls://"),
        ({"to": "tls://siem"}, "`to` in [outlet.a] must be tls://"),
        ({"to": "tls://siem:0"}, "`to` in [outlet.a] must be tls://"),
        ({"to": "tls://siem:99999"}, "`to` in [outlet.a] is not a URL"),
        ({"to": "tls://user:secret@siem:6514"}, "`to` in [outlet.a] must be"),
        ({"to": "tls://siem:6514/path"}, "`to` in [outlet.a] must have no path"),
        ({"to": "unix://dev/log"}, "`to` in [outlet.a] must name a socket by its whole path"),
        ({"to": "https://siem:443"}, "`to` in [outlet.a] must be tls://"),
        ({"to": "udp://siem:514", "format": "leef"}, '`format` in [outlet.a] must be "json" or "cef" or "ocsf"'),
        ({"to": "udp://siem:514", "buffer": 1}, "`buffer` in [outlet.a] is 1, and must be from 100"),
        ({"to": "udp://siem:514", "ca": "ca.pem"}, "`ca` in [outlet.a] is never used"),
        ({"to": "tls://siem:6514", "certificate": "c.pem"}, "`certificate` in [outlet.a] without `private_key`"),
        ({"to": "udp://siem:514", "events": "none", "changes": False}, "[outlet.a] sends neither events nor changes"),
        ({"to": "udp://siem:514", "bufer": 1}, "unknown key `bufer` in [outlet.a]; did you mean `buffer`?"),
    ],
)
def test_what_cannot_be_meant_is_refused(outlet: dict[str, Any], text: str) -> None:
    found = problems(with_outlets(a=outlet))
    assert any(text in line for line in found), found
    assert "secret" not in "".join(found)


def test_an_outlet_needs_a_name() -> None:
    (line,) = problems(tomli_w.dumps({**SMALLEST, "outlet": {"to": "udp://siem:514"}}))
    assert "`to` in [outlet]: each outlet has a table with a name of its own, as in [outlet.main]" in line


def test_a_file_of_tls_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(with_outlets(a={"to": "tls://siem:6514", "ca": "ca.pem"}))
    with pytest.raises(ConfigurationError, match=r"`ca` in \[outlet.a\]: .*ca.pem cannot be read"):
        load(file)
