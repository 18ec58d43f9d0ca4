import pickle
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.hsm import resolve
from holdfast.config.listeners import Address
from holdfast.config.load import load, parse
from holdfast.config.storage import Authorization
from holdfast.hsm.pkcs11.profile import PROFILES
from holdfast.hsm.settings import IvMode, LoginMode, TokenSelector

if TYPE_CHECKING:
    from holdfast.config.model import Configuration

FILE = Path("/etc/holdfast/holdfast.toml")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))

SMALLEST: dict[str, Any] = {
    "server": {"listen": "0.0.0.0:443"},
    "hsm": {"main": {"profile": "softhsm2", "library": "lib.so", "token": {"label": "t"}, "health_key": "health"}},
}


def written(**changes: dict[str, Any]) -> str:
    """The smallest configuration with keys added; None removes one. `hsm` is the table [hsm.main]."""
    document = {name: dict(table) for name, table in SMALLEST.items()}
    document["hsm"] = {"main": dict(SMALLEST["hsm"]["main"])}
    for name, keys in changes.items():
        table = document["hsm"]["main"] if name == "hsm" else document.setdefault(name, {})
        table |= keys
        for key in [key for key, value in table.items() if value is None]:
            del table[key]
    return tomli_w.dumps(document)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, FILE)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_configuration(path: Path) -> None:
    configuration = parse(path.read_text(), path)
    assert list(configuration.hsms) == ["main"]
    assert path.read_text().isascii()


def test_there_is_an_example_for_each_profile() -> None:
    assert {parse(path.read_text(), path).hsms["main"].settings.profile for path in EXAMPLES} == set(PROFILES) - {
        "generic"
    }


def test_there_is_an_example_for_each_way_to_use_nshield() -> None:
    """Three protections; one HSM, load-sharing, pool."""
    ways = {
        path.stem.removeprefix("nshield-"): parse(path.read_text(), path).hsms["main"].settings.environment
        for path in EXAMPLES
        if path.stem.startswith("nshield-")
    }
    shared = {"CKNFAST_LOADSHARING": "1"}
    alone = {"CKNFAST_LOADSHARING": "0"}
    assert ways == {
        "module": shared,
        "softcard": shared,
        "ocs": shared,
        "one-hsm": alone,
        "pool": {"CKNFAST_HSM_POOL": "1", **alone},
    }


def test_the_smallest_configuration_has_the_defaults() -> None:
    configuration = parse(written(), FILE)
    server, hsm = configuration.server, configuration.hsms["main"]
    assert (server.listen.port, server.workers, server.deadline_ms) == (443, 2, 200)
    assert (configuration.tls, configuration.log.events, server.health_listen) == (None, None, None)
    assert configuration.authorization is None
    assert configuration.catalog.url == "sqlite:////etc/holdfast/catalog.db"
    assert configuration.catalog.secrets_directory == Path("/etc/holdfast/secrets")
    assert configuration.encryption_limit.stop == 2**32
    assert (hsm.pin, hsm.settings.pin, hsm.settings.library) == (None, None, "lib.so")


def test_every_key_reaches_the_model() -> None:
    configuration = parse(
        written(
            server={
                "listen": "[::1]:8443", "workers": 3, "deadline_ms": 150, "max_body_bytes": 40_000,
                "max_header_bytes": 5_000, "max_connections": 7, "read_timeout_s": 1.5, "idle_timeout_s": 2,
                "drain_timeout_s": 3, "health_listen": "127.0.0.1:1", "metrics_listen": "localhost:2",
            },
            tls={"certificate": "c.pem", "private_key": "/k.pem", "client_ca": "ca.pem", "client_subject": "cks"},
            catalog={"url": "postgresql://u@h/d?passfile=/p", "secrets_directory": "s", "stale_limit_s": 9},
            encryption_limit={"warn": 1, "alarm": 2, "stop": "never"},
            authorization={"policies": "policies.cedar"},
            log={"events": "events.jsonl"},
            hsm={
                "token": {"slot": 492971157}, "login": "user", "pin": {"file": "pin"}, "sessions": 5, "queue": 6,
                "environment": {"A": "1"}, "iv_mode": "hsm-appended", "iv_length": 16, "gcm_parameter_bytes": 40,
                "iv_bits": False, "mechanism": 0x1087, "read_write_sessions": True, "probe_interval_s": 5,
                "library": "./lib.so",
            },
        ),
        FILE,
    )  # fmt: skip
    server, hsm = configuration.server, configuration.hsms["main"]
    assert (server.listen, server.workers, server.deadline_ms) == (Address("::1", 8443), 3, 150)
    assert (server.max_body_bytes, server.max_header_bytes) == (40_000, 5_000)
    assert (server.max_connections, server.read_timeout_s) == (7, 1.5)
    assert (server.idle_timeout_s, server.drain_timeout_s) == (2.0, 3.0)
    assert (server.health_listen, server.metrics_listen) == (Address("127.0.0.1", 1), Address("localhost", 2))
    assert configuration.tls is not None
    assert (configuration.tls.certificate, configuration.tls.private_key) == (FILE.with_name("c.pem"), Path("/k.pem"))
    assert (configuration.tls.client_ca, configuration.tls.client_subject) == (FILE.with_name("ca.pem"), "cks")
    assert configuration.catalog.url == "postgresql://u@h/d?passfile=/p"
    assert (configuration.catalog.secrets_directory, configuration.catalog.stale_limit_s) == (
        FILE.with_name("s"),
        9.0,
    )
    limits = configuration.encryption_limit
    assert (limits.warn, limits.alarm, limits.stop) == (1, 2, None)
    assert configuration.authorization == Authorization(FILE.with_name("policies.cedar"))
    assert configuration.log.events == FILE.with_name("events.jsonl")
    settings = hsm.settings
    assert (settings.name, settings.profile, settings.library) == ("main", "softhsm2", "/etc/holdfast/lib.so")
    assert (settings.token, settings.health_key) == (TokenSelector(slot=492971157), "health")
    assert (settings.login, str(hsm.pin)) == (LoginMode.USER, "file:/etc/holdfast/pin")
    assert (settings.sessions, settings.queue, settings.environment) == (5, 6, {"A": "1"})
    assert (settings.iv_mode, settings.iv_length, settings.gcm_parameter_bytes) == (IvMode.HSM_APPENDED, 16, 40)
    assert (settings.iv_bits, settings.mechanism, settings.read_write_sessions) == (False, 0x1087, True)
    assert settings.probe_interval_s == 5.0


def test_a_configuration_can_be_sent_to_a_worker() -> None:
    configuration = parse(written(hsm={"pin": {"env": "PIN"}}), FILE)
    sent: Configuration = pickle.loads(pickle.dumps(configuration))  # noqa: S301 (our own)
    assert sent == configuration


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = """\
[server]
listen = "0.0.0.0:443"
deadline_ms = 500
wrokers = 2
[tsl]
[hsm.main]
profile = "nshiled"
library = 3
token = { label = "x", slot = 3 }
sesions = 8
"""
    token = 'token = { label = "holdfast" }'
    profiles = " or ".join(f'"{name}"' for name in PROFILES)
    assert problems(text) == [
        f"{FILE}:3: `deadline_ms` in [server] is 500, and must be from 50 to 240",
        f"{FILE}:4: unknown key `wrokers` in [server]; did you mean `workers`?",
        f"{FILE}:5: unknown table [tsl]; did you mean [tls]?",
        f"{FILE}:6: `health_key` in [hsm.main] is missing: it is required (string)",
        f'{FILE}:7: `profile` in [hsm.main] must be {profiles}, not "nshiled"',
        f"{FILE}:8: `library` in [hsm.main] must be a string, not 3",
        f"{FILE}:9: `token` in [hsm.main] must have exactly one of label, serial, slot: {token}",
        f"{FILE}:10: unknown key `sesions` in [hsm.main]; did you mean `sessions`?",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": {"listen": None}}, "`listen` in [server] is missing"),
        ({"server": {"listen": "443"}}, "must be HOST:PORT"),
        ({"server": {"listen": "::1:443"}}, "must be HOST:PORT"),
        ({"server": {"listen": "0.0.0.0:65536"}}, "a port is from 1 to 65535"),
        ({"server": {"workers": True}}, "must be an integer, not true"),
        ({"server": {"workers": 0}}, "must be from 1 to 64"),
        ({"server": {"workers": 2.0}}, "must be an integer, not 2.0"),
        ({"server": {"read_timeout_s": "5"}}, 'must be a number of seconds, not "5"'),
        ({"server": {"read_timeout_s": float("nan")}}, "must be a number of seconds"),
        ({"server": {"health_listen": "0.0.0.0:443"}}, "`health_listen` in [server] is the address of"),
        ({"server": {"health_listen": "10.0.0.1:443"}}, "is the address of `listen` already"),
        ({"server": {"health_listen": "h:1", "metrics_listen": "h:1"}}, "`metrics_listen` in [server] is the"),
        ({"tls": {"certificate": "c"}}, "`private_key` in [tls] is missing"),
        ({"tls": {"certificate": "c", "private_key": "k", "client_ca": "a"}}, "`client_ca` in [tls] without"),
        ({"tls": {"certificate": "c", "private_key": "k", "client_subject": "s"}}, "without `client_ca`"),
        ({"catalog": {"url": "mysql://x"}}, "must be sqlite:///PATH"),
        ({"catalog": {"url": "sqlite:///"}}, "must be sqlite:///PATH"),
        ({"catalog": {"url": "sqlite:///a?b"}}, "must be sqlite:///PATH"),
        ({"catalog": {"url": "postgresql://[x"}}, "is not a URL"),
        ({"encryption_limit": {"stop": 2**32 + 1}}, "must be from 1 to 4294967296"),
        ({"encryption_limit": {"stop": "no"}}, 'must be an integer or "never"'),
        ({"encryption_limit": {"stop": 5}}, "`stop` in [encryption_limit] is 5, below `alarm`, which is 2147483648"),
        ({"encryption_limit": {"warn": 2**31 + 1}}, "`alarm` in [encryption_limit] is 2147483648, below `warn`"),
        ({"audit": {"directory": "a", "name": "a+b"}}, "must have 1 to 128 of A-Z a-z 0-9"),
        ({"audit": {"directory": "a", "name": "n", "hsm": "b"}}, "`hsm` in [audit] is 'b'; known are main"),
        ({"audit": {"directory": "a", "name": "n", "control_name": "c"}}, "`control_name` in [audit] without"),
        (
            {"audit": {"directory": "a", "name": "n", "control_directory": "./a", "control_name": "c"}},
            "`control_directory` in [audit] is `directory` already",
        ),
        ({"hsm": {"token": {}}}, "must have exactly one of label, serial, slot"),
        ({"hsm": {"token": {"slot": -1}}}, "it must be an integer from 0"),
        ({"hsm": {"token": "holdfast"}}, 'must be a table: token = { label = "holdfast" }'),
        ({"rotation": {"encryptions": 2**32}}, "at 4294967296 a key is stopped already"),
        ({"hsm": {"standby": True}}, "no HSM is left that serves"),
        ({"hsm": {"login": "user"}}, 'is "user", which needs a `pin`'),
        ({"hsm": {"login": "none", "pin": {"env": "P"}}}, 'is never used, because `login` is "none"'),
        ({"hsm": {"environment": {"A": 1}}}, 'quote it, as in A = "1"'),
        ({"hsm": {"environment": {"A=B": "1"}}}, "cannot be the name of an environment variable"),
        ({"hsm": {"iv_length": 13}}, "must be 12 or 16, not 13"),
        ({"hsm": {"health_key": ""}}, "must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_in_words(changes: dict[str, dict[str, Any]], words: str) -> None:
    (only,) = problems(written(**changes))
    assert words in only
    assert only.startswith(f"{FILE}:")
    assert only.removeprefix(f"{FILE}:")[0].isdigit()


@pytest.mark.parametrize(
    "pin", ["1234-hunter2", 12345678, {"value": "hunter2"}, {"file": ""}, {"env": "hunter2 "}, ["hunter2"]]
)
def test_an_inline_pin_is_refused_and_never_repeated(pin: object) -> None:
    (only,) = problems(written(hsm={"pin": pin}))
    assert 'pin = { file = "/etc/holdfast/pin" }' in only
    assert not any(part in only for part in ("hunter2", "12345678"))


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@h/d", "postgresql://u@h/d?password=hunter2"])
def test_an_inline_database_password_is_refused_and_never_repeated(url: str) -> None:
    (only,) = problems(written(catalog={"url": url}))
    assert "?passfile=/PATH" in only
    assert "hunter2" not in only


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nb = \n", ":2: is not TOML"),
        ("a = [1,\n\n", ":1: is not TOML"),
        ("[a]\nb = 1\nb = 2\n[c]\n", ":3: is not TOML: Cannot overwrite a value"),
        ("a = " + "[" * 10_000, "nested too deeply"),
        ("a = " + "9" * 5_000, "is not TOML: Exceeds the limit"),
        ("[server]\nworkers = 0x" + "f" * 5_000, ":2: `workers` in [server] is a number of more than 64 bits"),
        ("[server]\nread_timeout_s = 0x" + "f" * 5_000, ":2: `read_timeout_s` in [server] is a number of more than"),
        ("[server]\nread_timeout_s = inf", ":2: `read_timeout_s` in [server] is inf"),
        ('[server]\n"\\u001b[2J" = 1', r":2: unknown key `\x1b[2J` in [server]"),
        ("", "no table [server]"),
        ("server = 3", ":1: [server] must be a table"),
        ("[hsm]\nmain = 3", ":2: `main` in [hsm]: each HSM has a table"),
        ('[hsm."a b"]', ":1: `a b` cannot be the name of an HSM"),
        ("hsm = 3", ":1: no HSM: add a table [hsm.NAME]"),
        ("listen = 3", ":1: unknown key `listen` before any table"),
        ("[server]\nlisten = '0.0.0.0:443'\nserver = 3", ":3: unknown key `server` in [server]; known are listen,"),
    ],
)
def test_a_broken_file_is_told_in_words(text: str, words: str) -> None:
    assert any(words in problem for problem in problems(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"a = 1\n\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"x\.toml:2: is not UTF-8"):
        load(tmp_path / "x.toml")


def test_a_file_without_end_is_not_read_whole() -> None:
    with pytest.raises(ConfigurationError, match="pipe or a device, and not a file"):
        load(Path("/dev/zero"))


def test_tls_files_must_be_readable(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(written(tls={"certificate": "c.pem", "private_key": "k.pem"}))
    (tmp_path / "c.pem").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    (only,) = caught.value.problems
    assert only.text == f"`private_key` in [tls]: {tmp_path}/k.pem cannot be read: No such file or directory"
    (tmp_path / "k.pem").write_text("")
    assert load(file).tls is not None


@pytest.mark.parametrize(
    ("content", "pin"),
    [
        (b"1234", b"1234"),
        (b"1234\n", b"1234"),
        (b"1234\r\n", b"1234"),
        (b"user:password\n", b"user:password"),
        (b" a \n\n", b" a \n"),
        (b"p" * 600, b"p" * 600),
    ],
)
def test_a_pin_is_read_in_the_worker(tmp_path: Path, content: bytes, pin: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    table = parse(written(hsm={"pin": {"file": "pin"}}), tmp_path / "holdfast.toml").hsms["main"]
    settings = resolve(table)
    assert settings.pin is not None
    assert settings.pin.reveal() == pin
    assert pin.decode() not in repr(settings)


def test_a_pin_that_cannot_be_read_is_told_with_its_hsm() -> None:
    table = parse(written(hsm={"pin": {"file": "/nonexistent/pin"}}), FILE).hsms["main"]
    with pytest.raises(ConfigurationError, match=r"\[hsm.main\]: the PIN: /nonexistent/pin cannot be read"):
        resolve(table)


def test_a_pin_comes_from_the_environment_or_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TEST_PIN", "from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "pin").write_text("from-systemd\n")
    for reference, pin in (({"env": "HOLDFAST_TEST_PIN"}, b"from-env"), ({"credential": "pin"}, b"from-systemd")):
        settings = resolve(parse(written(hsm={"pin": reference}), FILE).hsms["main"])
        assert settings.pin is not None
        assert settings.pin.reveal() == pin


def test_without_a_pin_there_is_nothing_to_read() -> None:
    table = parse(written(), FILE).hsms["main"]
    assert resolve(table) is table.settings


_ANY: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(), st.datetimes()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=8), inner, max_size=2)),
    max_leaves=5,
)


@given(st.data())
def test_a_value_of_any_kind_is_taken_or_refused_in_words(data: st.DataObject) -> None:
    """Whatever stands at a known key, the answer is a Configuration or a ConfigurationError with lines."""
    from holdfast.config.tables import TABLES  # noqa: PLC0415 (beside its only use)

    table = data.draw(st.sampled_from(TABLES))
    key = data.draw(st.sampled_from(table.keys))
    name = table.name.partition(".")[0]
    text = written(**{name: {key.name: data.draw(_ANY)}})
    found: tuple[Problem, ...] = ()
    try:
        parse(text, FILE)
    except ConfigurationError as error:
        found = error.problems
    assert all(problem.line is not None for problem in found)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse(text, FILE)


def test_the_samples_here_are_toml() -> None:
    assert tomllib.loads(written()) == SMALLEST


def test_a_network_of_ipv4_in_the_form_of_ipv6_is_that_network(tmp_path: Path) -> None:
    text = written(server={"listen": "127.0.0.1:8443", "allow_networks": ["::ffff:10.0.0.0/104", "2001:db8::/32"]})
    networks = parse(text, tmp_path / "holdfast.toml").server.allow_networks
    assert [str(network) for network in networks] == ["10.0.0.0/8", "2001:db8::/32"]
