"""`holdfast doctor` names the mistake of a misconfigured nShield (the shim: emulated, not verified on hardware)."""

import subprocess
import sys
from typing import Any

import pytest
from tests.doctor.conftest import Findings, Install, doctor, named
from tests.server.conftest import Serve
from tests.server.proxy_server import HSM, KEYSTORE, ProxyServer
from tests.server.token import LIBRARY, softhsm_environment
from tests.shim.control import Personality
from tests.waiting import PATIENCE

pytestmark = pytest.mark.programs

MISTAKES = {
    "iv-mode",
    "login-required",
    "key-after-start",
    "token-label-twice",
    "mechanism-missing",
    "key-not-aes-256",
}


def mistakes(findings: Findings) -> list[tuple[str, str]]:
    """Which of the six were named, and of what."""
    return [(finding["code"], finding["subject"]) for finding in findings if finding["code"] in MISTAKES]


def without_the_short_key(server: ProxyServer) -> ProxyServer:
    """The catalog of tests/server has a 128-bit key on purpose; the other five mistakes are looked at without it."""
    text = server.config.with_name("catalog.db")
    script = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "db.execute(\"delete from key_generations where label = 'aes-128'\");"
        "db.execute(\"delete from external_keys where external_key_id = 'aes-128'\"); db.commit(); db.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(text)], check=True, timeout=PATIENCE)
    return server


def make_token(server: ProxyServer, label: str) -> None:
    """Another SoftHSM token, which the shim shows as an operator card set; in a process of its own."""
    script = (
        "import sys\nfrom holdfast.hsm.pkcs11.initialise import initialise_token\n"
        "from holdfast.xks.secret import Secret\n"
        "initialise_token(sys.argv[1], {}, label=sys.argv[2], so_pin=Secret(b'12345678'), pin=Secret(b'1234'))"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(LIBRARY), label],
        check=True,
        timeout=PATIENCE,
        env=softhsm_environment(server.directory),
    )


def test_right_configuration_has_none_of_the_mistakes(install: Install) -> None:
    findings = doctor(without_the_short_key(install("nshield")))
    assert mistakes(findings) == []
    assert {"module", "token", "login", "mechanism", "iv", "round-trip", "bad-tag"} <= {
        finding["code"] for finding in findings if finding["severity"] == "ok"
    }


def test_wrong_iv_mode(install: Install) -> None:
    """The proxy is told to make IVs, and nShield makes its own."""
    findings = doctor(without_the_short_key(install("nshield", hsm={"iv_mode": "proxy"})))
    assert mistakes(findings) == [("iv-mode", f"hsm.{HSM}")]
    (finding,) = named(findings, "iv-mode")
    assert 'iv_mode = "proxy" or iv_bits = true is wrong for this module' in finding["what"]
    assert 'this works: `iv_mode = "hsm-in-place"`' in finding["remedy"]


def test_login_required(install: Install) -> None:
    """Keys protected by an operator card, and no passphrase configured."""
    server = install("nshield", shim={"ocs_token": "operators"}, hsm={"token": {"label": "operators"}})
    make_token(server, "operators")
    findings = doctor(without_the_short_key(server))
    assert mistakes(findings) == [("login-required", f"hsm.{HSM}")]
    (finding,) = named(findings, "login-required")
    assert "requires a login" in finding["what"]
    assert "no `pin`" in finding["what"]
    assert "pin = {" in finding["remedy"]


def test_login_where_there_is_none(install: Install) -> None:
    """The reverse mistake: module-protected keys, and a login demanded."""
    server = install("nshield", hsm={"login": "user"})
    server.settings["hsm"][HSM]["pin"] = {"file": str(server.directory / "pin")}
    server.write_config()
    (finding,) = named(doctor(server), "login-not-supported")
    assert "accelerator" in finding["what"]


def test_key_created_after_the_proxy_started(serve: Serve) -> None:
    """A fresh process finds the key; the proxy, whose module froze its keys at C_Initialize, does not."""
    server = without_the_short_key(serve("nshield"))
    subprocess.run(
        [sys.executable, "-m", "holdfast", "key", "create", KEYSTORE, "late", "--config", str(server.config)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    findings = doctor(server)
    assert mistakes(findings) == [("key-after-start", f"key {KEYSTORE}/late")]
    (finding,) = named(findings, "key-after-start")
    assert "created after the proxy started" in finding["what"]
    assert "CKNFAST_ASSUME_SINGLE_PROCESS" in finding["why"]
    assert "systemctl reload holdfast" in finding["remedy"]
    server.hangup()
    with server.caller(key="late") as caller:
        server.eventually(lambda: caller.metadata().status == 200, within=10, what="the remedy helps")


def test_two_tokens_with_one_label(install: Install) -> None:
    """Two modules without load-sharing: each shows an `accelerator`."""
    server = install("nshield", shim={"load_sharing": False}, hsm={"token": {"label": "accelerator"}})
    findings = doctor(without_the_short_key(server))
    assert mistakes(findings) == [("token-label-twice", f"hsm.{HSM}")]
    (finding,) = named(findings, "token-label-twice")
    assert finding["what"].startswith("2 tokens answer to the label 'accelerator'")
    assert "CKNFAST_LOADSHARING" in finding["remedy"]


def test_mechanism_missing(install: Install) -> None:
    """Firmware before AES-GCM."""
    findings = doctor(without_the_short_key(install("nshield", shim={"no_gcm": True})))
    assert mistakes(findings) == [("mechanism-missing", f"hsm.{HSM}")]
    (finding,) = named(findings, "mechanism-missing")
    assert "does not offer AES-GCM (mechanism 0x1087)" in finding["what"]


def test_128_bit_key(install: Install) -> None:
    findings = doctor(install("nshield"))
    assert mistakes(findings) == [("key-not-aes-256", f"key {KEYSTORE}/aes-128")]
    (finding,) = named(findings, "key-not-aes-256")
    assert "is AES with 128 bits, not AES with 256 bits" in finding["what"]


@pytest.mark.parametrize(
    ("personality", "wrong", "right"),
    [
        ("luna", {"iv_bits": False}, "`iv_bits = true`"),
        ("luna", {"iv_mode": "proxy", "iv_length": 12}, '`iv_mode = "hsm-appended", iv_length = 16`'),
        ("cloudhsm", {"iv_mode": "proxy"}, '`iv_mode = "hsm-in-place"`'),
        ("nss-strict", {"iv_bits": False}, "`iv_bits = true`"),
        ("legacy-40-byte", {}, "`gcm_parameter_bytes = 40`"),
        ("silent-zero", {"iv_mode": "hsm-in-place"}, '`iv_mode = "proxy"`'),
    ],
)
def test_doctor_tries_the_settings_of_aes_gcm_and_names_those_that_work(
    install: Install, personality: Personality, wrong: dict[str, Any], right: str
) -> None:
    server = install(personality, hsm=wrong)
    (finding,) = named(doctor(server), "iv-mode")
    assert f"this works: {right} in [hsm.{HSM}]" in finding["remedy"]
    lines = finding["remedy"].split("`")[1].split(", ")
    # The remedy, done as it says.
    text = server.config.read_text()
    names = [line.partition(" ")[0] for line in lines]
    kept = [line for line in text.splitlines() if line.partition(" ")[0] not in names]
    server.config.write_text("\n".join(kept).replace(f"[hsm.{HSM}]", "\n".join([f"[hsm.{HSM}]", *lines]), 1))
    findings = doctor(server)
    assert not named(findings, "iv-mode")
    assert named(findings, "iv")[0]["severity"] == "ok"


@pytest.mark.parametrize(
    ("function", "ckr", "code", "word"),
    [
        ("C_Login", 0xA0, "login-refused", "Compare the PIN"),
        ("C_Login", 0xA4, "login-refused", "security officer must unlock"),
        ("C_Login", 0xA3, "login-refused", "has expired"),
        ("C_Login", 0x102, "login-refused", "no user PIN yet"),
        ("C_OpenSession", 0xB1, "login-failed", "`sessions` times `workers`"),
        ("C_OpenSession", 0xB5, "login-failed", "read_write_sessions = true"),
        ("C_Initialize", 0x05, "module-failed", "Check the module's configuration"),
    ],
)
def test_each_failure_has_advice_for_its_own_code(
    install: Install, function: str, ckr: int, code: str, word: str
) -> None:
    server = install("plain", hsm={"profile": "generic"})
    assert server.shim is not None
    server.shim.fail(function, ckr)
    (finding,) = named(doctor(server), code)
    assert word in finding["remedy"]


@pytest.mark.parametrize(
    ("profile", "word"), [("softhsm2", "SOFTHSM2_CONF"), ("nshield", "hardserver"), ("luna", "Chrystoki.conf")]
)
def test_a_module_that_does_not_start_is_explained_by_its_vendor(install: Install, profile: str, word: str) -> None:
    server = install("plain", hsm={"profile": profile})
    assert server.shim is not None
    server.shim.fail("C_Initialize", 0x05)
    (finding,) = named(doctor(server), "module-failed")
    assert word in finding["remedy"]
