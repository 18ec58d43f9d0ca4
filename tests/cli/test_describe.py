"""`holdfast key describe`, and what was seen of a key, on real SoftHSM."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.test_key_commands import config, hsm_operator, shown, template

from holdfast.cli.exit_codes import ExitCode

__all__ = ["config", "template"]

pytestmark = pytest.mark.programs


def describe(run: Run, config: Path, *options: str) -> Any:
    return run("key", "describe", "demo", "demo-key", *options, "--config", config)


def test_a_key_is_described_and_listed_by_it(run: Run, config: Path) -> None:
    run("key", "create", "demo", "other", "--config", config).ok()
    described = ("--owner", "Payments", "--tag", "data=cards", "--tag", "stage=prod", "--cryptoperiod", "2y")
    done = describe(run, config, *described, "--reference", "CMDB-7", "--recipient-period", "5y").ok()
    assert "demo-key is described anew." in done.err
    key = shown(run, config, "demo-key")
    assert key.items() >= {
        "purpose": "xks-gcm", "owner": "Payments", "external_reference": "CMDB-7", "description": None,
        "tags": {"data": "cards", "stage": "prod"}, "cryptoperiod_days": 730, "recipient_period_days": 1825,
    }.items()  # fmt: skip
    assert key["encrypts_until"] > key["generations"][0]["activated_at"]
    for options, found in (
        (("--owner", "Payments"), ["demo-key"]),
        (("--tag", "data"), ["demo-key"]),
        (("--tag", "data=cards", "--tag", "stage=prod"), ["demo-key"]),
        (("--tag", "data=other"), []),
        (("--owner", "nobody"), []),
        ((), ["demo-key", "other"]),
    ):
        rows = run("key", "list", *options, "--json", "--config", config).ok().json
        assert [row["external_key_id"] for row in rows] == found, options
    assert "tags: data=cards, stage=prod\n" in run("key", "show", "demo", "demo-key", "--config", config).ok().out


def test_a_description_makes_no_new_version_and_its_inverse_is_printed(run: Run, config: Path) -> None:
    before = run("catalog", "show", "--json", "--config", config).ok().json["version"]
    describe(run, config, "--owner", "Cards & more", "--tag", "a=b c", "--cryptoperiod", "365d").ok()
    done = describe(run, config, "--owner", "", "--untag", "a", "--cryptoperiod", "none").ok()
    assert shown(run, config, "demo-key")["owner"] is None
    assert run("catalog", "show", "--json", "--config", config).ok().json["version"] == before
    undo = shlex.split(done.err.partition("To undo it: `holdfast ")[2].partition("`")[0])
    run(*undo).ok()
    key = shown(run, config, "demo-key")
    assert (key["owner"], key["tags"], key["cryptoperiod_days"]) == ("Cards & more", {"a": "b c"}, 365)


def test_what_is_so_already_is_no_change(run: Run, config: Path) -> None:
    describe(run, config, "--owner", "Payments").ok()
    again = describe(run, config, "--owner", "Payments").ok()
    assert "described so already" in again.err
    assert "Recorded as" not in again.err


@pytest.mark.parametrize(
    "options",
    [
        ("--tag", "novalue"),
        ("--tag", "bad name=x"),
        ("--tag", "a=" + "x" * 257),
        ("--untag", "a=b"),
        ("--owner", "x" * 129),
        ("--owner", "two\nlines"),
        ("--cryptoperiod", "1h"),
        ("--cryptoperiod", "101y"),
        ("--cryptoperiod", "2y", "--recipient-period", "1y"),
        tuple(word for number in range(51) for word in ("--tag", f"t{number}=x")),
    ],
)
def test_what_cannot_be_said_is_refused(run: Run, config: Path, options: tuple[str, ...]) -> None:
    refused = describe(run, config, *options)
    assert refused.code == ExitCode.CONFIGURATION
    assert "hint: " in refused.err
    assert shown(run, config, "demo-key")["tags"] == {}


def test_a_check_value_is_the_cmac_of_zeros_and_only_of_a_key_that_may_sign(run: Run, config: Path) -> None:
    """Not the older one: for AES-GCM that would be the beginning of the key of GHASH."""
    hsm_operator(
        config, "inspector.generate_aes_256('signs', b'\\x07', usages=('ENCRYPT', 'DECRYPT', 'SIGN', 'VERIFY'))"
    )
    run("key", "register", "demo", "signs", "--config", config).ok()
    found = bytes.fromhex(shown(run, config, "signs")["check_value"])
    assert len(found) == 5
    assert shown(run, config, "demo-key")["check_value"] is None
    known = config.parent / "known"
    hsm_operator(
        config,
        f"""
        from holdfast.hsm.pkcs11.inspect import CKM_AES_CMAC
        (key,) = inspector.find_keys('signs')
        whole = inspector._cryptoki.sign(inspector._open(), CKM_AES_CMAC, key.handle, bytes(16))
        open({str(known)!r}, 'wb').write(whole)
        """,
    )
    assert known.read_bytes()[:5] == found


def test_the_security_world_of_the_configuration_is_recorded(run: Run, config: Path) -> None:
    text = config.read_text().replace("[hsm.softhsm]", f'[hsm.softhsm]\nworld = "{"0a" * 20}"')
    config.write_text(text)
    run("key", "create", "demo", "second", "--config", config).ok()
    assert shown(run, config, "second")["world"] == "0a" * 20


def test_the_record_holds_what_the_hsm_showed(run: Run, config: Path) -> None:
    run("key", "create", "demo", "second", "--config", config).ok()
    cka_id = shown(run, config, "second")["cka_id"]
    rows = run("change", "list", "--json", "--config", config).ok().json
    (made,) = (row["record"] for row in rows if row["record"]["subject"] == "key demo/second")
    _, seen = made["effects"]
    assert seen["subject"] == "the HSM key of key demo/second"
    assert seen["after"]["cka_id"] == cka_id
    assert seen["after"]["attributes"]["CKA_EXTRACTABLE"] is False
