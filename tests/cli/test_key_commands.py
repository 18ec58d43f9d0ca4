"""`holdfast key` on real SoftHSM: a key is made in the HSM or looked at there before it is registered."""

import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.waiting import PATIENCE
from tools.docs.shapes import SHAPES

from holdfast.cli.exit_codes import ExitCode
from holdfast.store.errors import Unavailable
from holdfast.store.store import Catalog
from holdfast.store.transaction import Transaction


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A setup by `holdfast init`, in a process of its own."""
    directory = tmp_path_factory.mktemp("setup") / "state"
    subprocess.run(
        [sys.executable, "-m", "holdfast", "init", "--directory", str(directory)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return directory


@pytest.fixture
def config(tmp_path: Path, template: Path) -> Path:
    """A copy of the setup, with what was absolute in it put right."""
    directory = tmp_path / "state"
    shutil.copytree(template, directory)
    for name in ("holdfast.toml", "softhsm/softhsm2.conf"):
        file = directory / name
        file.write_text(file.read_text().replace(str(template), str(directory)))
    return directory / "holdfast.toml"


def tool(config: Path, *arguments: str) -> None:
    """OpenSC's pkcs11-tool: another vendor's tool that makes keys in its own way."""
    directory = config.parent / "softhsm"
    pin = (directory / "pin").read_text().strip()
    subprocess.run(
        ["pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--login", "--pin", pin, *arguments],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        env={"SOFTHSM2_CONF": str(directory / "softhsm2.conf"), "PATH": "/usr/bin:/bin"},
    )


def hsm_operator(config: Path, work: str) -> None:
    """Runs `work` with an `inspector` of the setup's token, in a process of its own."""
    script = f"""
import sys
from pathlib import Path
from holdfast.control.keys import hsm_settings
from holdfast.config.load import parse
from holdfast.hsm.pkcs11.cryptoki import ffi
from holdfast.hsm.pkcs11.inspect import Inspector

path = Path(sys.argv[1])
with Inspector(hsm_settings(parse(path.read_text(), path), None)) as inspector:
{textwrap.indent(textwrap.dedent(work).strip(), "    ")}
"""
    subprocess.run([sys.executable, "-c", script, str(config)], check=True, timeout=PATIENCE)


def test_create_makes_and_registers(run: Run, config: Path) -> None:
    made = run("key", "create", "demo", "second", "--json", "--config", config).ok().json
    assert made.pop("created_at").endswith("Z")
    cka_id = made.pop("cka_id")
    assert len(bytes.fromhex(cka_id)) == 16
    assert made.pop("token_serial")
    assert made.pop("attributes").items() >= {
        "CKA_SENSITIVE": True, "CKA_EXTRACTABLE": False, "CKA_ALWAYS_SENSITIVE": True, "CKA_NEVER_EXTRACTABLE": True,
        "CKA_LOCAL": True, "CKA_ENCRYPT": True, "CKA_DECRYPT": True, "CKA_SIGN": False, "CKA_WRAP": False,
    }.items()  # fmt: skip
    assert len(bytes.fromhex(made.pop("tag"))) == 12
    assert made == {
        "keystore": "demo",
        "external_key_id": "second",
        "status": "ENABLED",
        "enabled_until": None,
        "pinned_to": None,
        "generation": 1,
        "state": "active",
        "metadata_format": 2,
        "hsm": "softhsm",
        "label": "second",
        "takeover": None,
        "encryptions_at_most": 1,  # the canary's
        "stopped": None,
        "has_canary": True,
        "purpose": "xks-gcm",
        "owner": None,
        "description": None,
        "external_reference": None,
        "tags": {},
        "cryptoperiod_days": None,
        "recipient_period_days": None,
        "encrypts_until": None,
        "decrypts_until": None,
        "check_value": None,
        "world": None,
    }
    assert run("key", "show", "demo", "second", "--json", "--config", config).ok().json["cka_id"] == cka_id
    rows = run("key", "list", "demo", "--json", "--config", config).ok().json
    assert [row["external_key_id"] for row in rows] == ["demo-key", "second"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "demo", "demo-key"), ExitCode.CONFLICT),
        (("create", "demo", "other", "--label", "demo-key"), ExitCode.HSM),
        (("create", "nowhere", "other"), ExitCode.NOT_FOUND),
        (("create", "demo", "other", "--hsm", "nowhere"), ExitCode.NOT_FOUND),
        (("create", "demo", "with space"), ExitCode.CONFIGURATION),
        (("register", "demo", "missing"), ExitCode.HSM),
        (("register", "demo", "other", "--label", "demo-key"), ExitCode.CONFLICT),
        (("register", "demo", "other", "--id", "xyz"), ExitCode.CONFIGURATION),
        (("show", "demo", "missing"), ExitCode.NOT_FOUND),
    ],
)
def test_refusals(run: Run, config: Path, arguments: tuple[str, ...], code: ExitCode) -> None:
    done = run("key", *arguments, "--config", config)
    assert (done.code, done.out) == (code, "")
    assert "holdfast: error: " in done.err


def test_register_of_a_good_key_is_silent(run: Run, config: Path) -> None:
    """Also: an HSM key may serve a second keystore, as two AWS accounts may share one, if that is said and agreed."""
    run("keystore", "create", "other", "--config", config).ok()
    register = ("key", "register", "other", "demo-key", "--prior-encryptions", "1000", "--config", config)
    refused = run(*register)
    assert refused.code == ExitCode.CONFLICT
    assert "if this is meant, add --share-with demo" in refused.err
    planned = run(*register, "--share-with", "demo")
    assert planned.code == ExitCode.UNCONFIRMED
    assert "Ciphertexts of format 1 open in other and in demo" in planned.err
    done = run(*register, "--share-with", "demo", "--yes").ok()
    assert "Registered the key demo-key" in done.err
    assert "warning" not in done.err
    rows = run("key", "list", "--json", "--config", config).ok().json
    assert all(row["encryptions_at_most"] >= 1000 for row in rows)  # both names of the one key


def test_a_key_is_unregistered_after_it_was_disabled(run: Run, config: Path) -> None:
    unregister = ("key", "unregister", "demo", "demo-key", "--yes", "--config", config)
    assert "only a disabled key is unregistered" in run(*unregister).err
    run("key", "disable", "demo", "demo-key", "--yes", "--config", config).ok()
    done = run(*unregister).ok()
    assert "The HSM keeps the key. To register it again" in done.err
    assert run("key", "list", "--json", "--config", config).json == []


def test_a_key_that_is_registered_again_keeps_its_tag(run: Run, config: Path) -> None:
    tag = shown(run, config, "demo-key")["tag"]
    run("key", "disable", "demo", "demo-key", "--yes", "--config", config).ok()
    done = run("key", "unregister", "demo", "demo-key", "--yes", "--config", config).ok()
    (options,) = re.findall(r"say (--tag \w+ --prior-encryptions \d+)", done.err)
    run("key", "register", "demo", "demo-key", *options.split(), "--config", config).ok()
    assert shown(run, config, "demo-key")["tag"] == tag


def test_keys_are_upgraded_when_no_older_proxy_runs(run: Run, config: Path) -> None:
    def catalog(statement: str) -> None:
        with closing(sqlite3.connect(config.parent / "catalog.db")) as connection, connection:
            connection.execute(statement)

    upgrade = ("key", "upgrade", "--yes", "--config", config)
    assert "already" in run(*upgrade).ok().err
    catalog("UPDATE external_keys SET metadata_format = 1")
    catalog("INSERT INTO proxies (id, last_seen) VALUES ('old:443', strftime('%Y-%m-%d %H:%M:%f', 'now'))")
    refused = run(*upgrade)
    assert refused.code == ExitCode.CONFLICT
    assert "upgrade every proxy first" in refused.err
    # A key that is made meanwhile is one that every proxy can read.
    run("key", "create", "demo", "meanwhile", "--config", config).ok()
    assert shown(run, config, "meanwhile")["metadata_format"] == 1
    catalog("DELETE FROM proxies")
    done = run(*upgrade).ok()
    assert "there is no way back to it after this" in done.err
    assert [shown(run, config, key)["metadata_format"] for key in ("demo-key", "meanwhile")] == [2, 2]


@pytest.mark.programs
def test_register_refuses_a_key_that_may_leave_the_hsm_unless_the_configuration_allows_it(
    run: Run, config: Path
) -> None:
    loose = ("--label", "loose", "--sensitive", "--extractable", "--usage-decrypt")
    tool(config, "--keygen", "--key-type", "AES:32", *loose)
    refused = run("key", "register", "demo", "loose", "--config", config)
    assert refused.code == ExitCode.HSM
    assert "CKA_EXTRACTABLE is true" in refused.err
    assert "allow_extractable = true" in refused.err
    allow(config)
    done = run("key", "register", "demo", "loose", "--config", config).ok()
    assert "warning: a copy of the key 'loose' may exist outside the HSM" in done.err


def allow(config: Path) -> None:
    """The remedy that the refusal names."""
    config.write_text(config.read_text().replace("[hsm.softhsm]\n", "[hsm.softhsm]\nallow_extractable = true\n"))


def shown(run: Run, config: Path, key: str, keystore: str = "demo") -> Any:
    return run("key", "show", keystore, key, "--json", "--config", config).ok().json


def twin(config: Path, label: str, identity: str | None) -> None:
    """Another AES-256 key under a label."""
    arguments = ["--keygen", "--key-type", "AES:32", "--label", label, "--sensitive", "--usage-decrypt"]
    tool(config, *arguments, *([] if identity is None else ["--id", identity]))


@pytest.mark.programs
def test_register_records_the_cka_id_that_the_key_has(run: Run, config: Path) -> None:
    twin(config, "foo", "0a")
    run("key", "register", "demo", "foo", "--config", config).ok()
    assert shown(run, config, "foo")["cka_id"] == "0a"
    assert shown(run, config, "foo")["has_canary"]
    # So a second key of that label changes nothing.
    twin(config, "foo", "f1")
    findings = run("doctor", "--json", "--config", config).json["findings"]
    assert {f["code"] for f in findings if f["subject"] == "key demo/foo"} >= {"key-confirmed", "key-label-shared"}


def without_cka_id(config: Path, key: str) -> None:
    """As a key was registered before the CKA_ID was recorded."""
    database = sqlite3.connect(config.parent / "catalog.db")
    database.execute("UPDATE key_generations SET cka_id = NULL WHERE label = ?", (key,))
    database.execute("UPDATE catalog SET version = version + 1")
    database.commit()
    database.close()


@pytest.mark.programs
def test_the_remedy_for_a_label_used_twice_works(run: Run, config: Path) -> None:
    twin(config, "foo", "0a")
    run("key", "register", "demo", "foo", "--config", config).ok()
    without_cka_id(config, "foo")
    twin(config, "foo", "f1")
    findings = run("doctor", "--json", "--config", config).json["findings"]
    (finding,) = [f for f in findings if f["code"] == "key-label-twice"]
    command = finding["remedy"].split("`")[1]
    assert command == "holdfast key rebind demo foo"
    done = run(*command.split()[1:], "--yes", "--config", config).ok()
    assert "it is the same key" in done.err
    assert shown(run, config, "foo")["cka_id"] == "0a"
    codes = {f["code"] for f in run("doctor", "--json", "--config", config).json["findings"]}
    assert "key-label-twice" not in codes


@pytest.mark.programs
def test_the_remedy_for_a_label_used_twice_works_without_a_canary(run: Run, config: Path) -> None:
    twin(config, "foo", "0a")
    run("key", "register", "demo", "foo", "--config", config).ok()
    without_cka_id(config, "foo")
    without_canary(config, "foo")
    twin(config, "foo", "f1")
    findings = run("doctor", "--json", "--config", config).json["findings"]
    (finding,) = [f for f in findings if f["code"] == "key-label-twice"]
    command = finding["remedy"].split("`")[1].replace("HEX", "0a")
    refused = run(*command.split()[1:], "--config", config)
    assert refused.code == ExitCode.UNCONFIRMED
    assert "WARNING: nothing proves that it is the same key" in refused.err
    run(*command.split()[1:], "--yes", "--config", config).ok()
    assert (shown(run, config, "foo")["cka_id"], shown(run, config, "foo")["has_canary"]) == ("0a", True)


def without_canary(config: Path, key: str) -> None:
    """As a key was registered before there were canaries."""
    database = sqlite3.connect(config.parent / "catalog.db")
    database.execute("UPDATE key_generations SET canary = NULL WHERE label = ?", (key,))
    database.commit()
    database.close()


@pytest.mark.programs
def test_a_key_that_was_given_another_label_is_found_again(run: Run, config: Path) -> None:
    tool(config, "--keygen", "--key-type", "AES:32", "--label", "old", "--sensitive", "--usage-decrypt", "--id", "0a")
    run("key", "register", "demo", "moved", "--label", "old", "--config", config).ok()
    hsm_operator(
        config,
        """
        (key,) = inspector.find_keys('old')
        value = ffi.new('CK_BYTE[]', b'new')
        attribute = ffi.new('CK_ATTRIBUTE *', {'type': 3, 'pValue': value, 'ulValueLen': 3})
        table = ffi.cast('CK_FUNCTION_LIST *', inspector._cryptoki._table)
        call = ffi.cast('CK_RV (*)(CK_ULONG, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG)', table.C_SetAttributeValue)
        assert call(inspector._open(), key.handle, attribute, 1) == 0
        """,
    )
    findings = run("doctor", "--json", "--config", config).json["findings"]
    (finding,) = [f for f in findings if f["code"] == "key-not-found"]
    assert finding["subject"] == "key demo/moved"
    (command,) = re.findall("`(holdfast key [^`]+)`", finding["remedy"])
    run(*command.split()[1:], "--yes", "--config", config).ok()
    assert shown(run, config, "moved")["label"] == "new"


@pytest.mark.programs
def test_rebind_refuses_every_object_that_does_not_open_the_canary(run: Run, config: Path) -> None:
    before = shown(run, config, "demo-key")
    twin(config, "imposter", "0c")
    for arguments in (("--label", "imposter"), ("--id", "0c"), ("--label", "imposter", "--id", "0c")):
        refused = run("key", "rebind", "demo", "demo-key", *arguments, "--yes", "--config", config)
        assert refused.code == ExitCode.HSM
        assert "no key with this label and CKA_ID opens the canary" in refused.err
        assert "it is not on the token" not in refused.err
    assert shown(run, config, "demo-key") == before


@pytest.mark.programs
def test_a_key_for_tests_is_registered_only_when_asked_for(run: Run, config: Path) -> None:
    """The three kinds that AWS's test client and `holdfast check` ask for."""
    kinds = {"encrypt-only": (True, False), "decrypt-only": (False, True), "impotent": (False, False)}
    hsm_operator(
        config,
        """
        for label, usages in (('encrypt-only', ['ENCRYPT']), ('decrypt-only', ['DECRYPT']), ('impotent', [])):
            inspector.generate_aes_256(label, label.encode(), usages=usages)
        """,
    )
    for label in kinds:
        refused = run("key", "register", "demo", label, "--config", config)
        assert refused.code == ExitCode.HSM
        assert "--for-tests" in refused.err
        run("key", "register", "demo", label, "--for-tests", "--config", config).ok()
        assert not shown(run, config, label)["has_canary"]
    findings = run("doctor", "--json", "--config", config).json["findings"]
    noted = [f["subject"] for f in findings if f["code"] == "key-for-tests"]
    assert noted == [f"key demo/{label}" for label in kinds]
    assert not [f for f in findings if f["code"] == "key-usage"]


@pytest.mark.programs
def test_a_swapped_key_is_an_error_of_doctor(run: Run, config: Path) -> None:
    hsm_operator(
        config,
        """
        (key,) = inspector.find_keys('demo-key')
        inspector.destroy_key(key)
        inspector.generate_aes_256('demo-key', key.id)
        """,
    )
    done = run("doctor", "--json", "--config", config)
    assert done.code == ExitCode.ERRORS
    (finding,) = [f for f in done.json["findings"] if f["code"] == "key-not-the-same"]
    assert finding["subject"] == "key demo/demo-key"
    assert "`holdfast key rebind demo demo-key`" in finding["remedy"]


def test_a_stopped_key_is_shown_and_released_by_a_person(run: Run, config: Path) -> None:
    database = sqlite3.connect(config.parent / "catalog.db")
    database.execute(
        "UPDATE key_generations SET stopped_at = '2026-01-01 00:00:00', stopped_reason = 'an IV came back'"
    )
    database.commit()
    database.close()
    findings = run("doctor", "--json", "--config", config).json["findings"]
    (finding,) = [f for f in findings if f["code"] == "key-stopped"]
    assert "an IV came back" in finding["what"]
    assert "`holdfast key release demo demo-key`" in finding["remedy"]
    assert "STOPPED" in run("key", "list", "--config", config).ok().out
    refused = run("key", "release", "demo", "demo-key", "--config", config)
    assert refused.code == ExitCode.UNCONFIRMED
    assert shown(run, config, "demo-key")["stopped"] == "an IV came back"
    run("key", "release", "demo", "demo-key", "--yes", "--config", config).ok()
    assert shown(run, config, "demo-key")["stopped"] is None


@pytest.mark.programs
def test_create_names_register_for_a_label_that_the_hsm_has(run: Run, config: Path) -> None:
    twin(config, "foo", "0a")
    refused = run("key", "create", "demo", "foo", "--config", config)
    assert refused.code == ExitCode.HSM
    assert "`holdfast key register demo foo --label foo`" in refused.err


@pytest.mark.programs
def test_register_refuses_a_short_key(run: Run, config: Path) -> None:
    tool(config, "--keygen", "--key-type", "AES:16", "--label", "short", "--sensitive", "--usage-decrypt")
    done = run("key", "register", "demo", "short", "--config", config)
    assert done.code == ExitCode.HSM
    assert "is AES with 128 bits" in done.err
    rows = run("key", "list", "--json", "--config", config).ok().json
    assert [row["external_key_id"] for row in rows] == ["demo-key"]


def test_register_refuses_the_health_key(run: Run, config: Path) -> None:
    refused = run("key", "register", "demo", "probe", "--label", "holdfast-health", "--config", config)
    assert refused.code == ExitCode.HSM
    assert "is the health key" in refused.err


@pytest.mark.programs
def test_register_tells_keys_of_one_label_apart_by_id(run: Run, config: Path) -> None:
    twin = ("--keygen", "--key-type", "AES:32", "--label", "twin", "--sensitive", "--usage-decrypt", "--id")
    for identity in ("0a", "0b"):
        tool(config, *twin, identity)
    done = run("key", "register", "demo", "twin", "--config", config)
    assert done.code == ExitCode.HSM
    assert "2 secret keys of the token have the label 'twin'" in done.err
    run("key", "register", "demo", "twin", "--id", "0b", "--config", config).ok()
    assert run("key", "show", "demo", "twin", "--json", "--config", config).ok().json["cka_id"] == "0b"


def test_disable_and_enable_ask_first(run: Run, config: Path) -> None:
    def status() -> str:
        return str(run("key", "show", "demo", "demo-key", "--json", "--config", config).ok().json["status"])

    refused = run("key", "disable", "demo", "demo-key", "--config", config)
    assert refused.code == ExitCode.UNCONFIRMED
    assert "InvalidStateException" in refused.err
    assert status() == "ENABLED"
    run("key", "disable", "demo", "demo-key", "--yes", "--config", config).ok()
    assert status() == "DISABLED"
    again = run("key", "disable", "demo", "demo-key", "--json", "--config", config).ok().json
    assert again == {"keystore": "demo", "external_key_id": "demo-key", "status": "DISABLED", "changed": False}
    run("key", "enable", "demo", "demo-key", "--yes", "--config", config).ok()
    assert status() == "ENABLED"


def test_a_key_that_was_registered_in_spite_of_an_error_is_kept(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks during the commit: destroying the key would leave a registered name without one."""
    changing = Catalog.changing

    @contextmanager
    def commits_and_fails(*arguments: Any, **options: Any) -> Iterator[Transaction]:
        with changing(*arguments, **options) as transaction:
            yield transaction
        raise Unavailable("the connection broke")

    monkeypatch.setattr(Catalog, "changing", commits_and_fails)
    assert run("key", "create", "demo", "late", "--config", config).code == ExitCode.CATALOG
    monkeypatch.undo()
    assert run("key", "show", "demo", "late", "--json", "--config", config).ok().json["label"] == "late"
    again = run("key", "register", "demo", "late-again", "--label", "late", "--config", config)
    assert again.code == ExitCode.CONFLICT  # the HSM has it, and it serves `late`


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_registration_leaves_no_key(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise interruption

    monkeypatch.setattr(Transaction, "register_key", interrupted)
    assert run("key", "create", "demo", "late", "--config", config).code != 0
    monkeypatch.undo()
    run("key", "create", "demo", "late", "--config", config).ok()


def test_failed_registration_leaves_no_key_in_the_hsm(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that no catalog knows would only bar its label."""

    def down(*_: object, **__: object) -> None:
        raise Unavailable("the database has gone")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "register_key", down)
        assert run("key", "create", "demo", "second", "--config", config).code == ExitCode.CATALOG
    run("key", "create", "demo", "second", "--config", config).ok()


def test_no_command_says_a_pin(run: Run, config: Path) -> None:
    pins = [(config.parent / "softhsm" / name).read_text().strip() for name in ("pin", "so-pin")]
    secrets = [path.read_text().strip() for path in (config.parent / "secrets").iterdir()]
    done = [
        run("key", "create", "demo", "another", "--config", config),
        run("key", "register", "demo", "missing", "--config", config),
        run("doctor", "--config", config),
        run("doctor", "--json", "--config", config),
        run("init", "--directory", config.parent),
    ]
    said = "".join(result.out + result.err for result in done)
    assert not [text for text in pins + secrets if text in said]


def test_wrong_pin_is_tried_once_and_named(run: Run, config: Path) -> None:
    (config.parent / "softhsm" / "pin").write_text("marked-wrong-pin\n")
    done = run("doctor", "--config", config)
    assert done.code == ExitCode.ERRORS
    assert "[login-refused]" in done.out
    assert "marked-wrong-pin" not in done.out + done.err


def test_json_documents_have_the_documented_fields(run: Run, config: Path) -> None:
    """All that can run here without a server; the others are looked at where they run."""
    (credential,) = run("credential", "list", "--json", "--config", config).ok().json
    calls: dict[str, tuple[object, ...]] = {
        "init --directory": ("init", "--directory", config.parent),
        "init --config": ("init",),
        "keystore create": ("keystore", "create", "extra"),
        "keystore list": ("keystore", "list"),
        "keystore show": ("keystore", "show", "demo"),
        "keystore set": ("keystore", "set", "extra", "--region", "eu-central-1", "--yes"),
        "catalog show": ("catalog", "show"),
        "keystore block": ("keystore", "block", "--all", "--yes"),
        "keystore unblock": ("keystore", "unblock", "--all", "--yes"),
        "credential issue": ("credential", "issue", "demo"),
        "credential issue --show-secret": ("credential", "issue", "demo", "--show-secret"),
        "credential list": ("credential", "list"),
        "credential retire": ("credential", "retire", credential["access_key_id"], "--yes"),
        "key create": ("key", "create", "demo", "extra"),
        "key register": ("key", "register", "extra", "demo-key", "--share-with", "demo", "--yes"),
        "key list": ("key", "list"),
        "key show": ("key", "show", "demo", "demo-key"),
        "key drill": ("key", "drill", "--hsm", "softhsm"),
        "key rebind": ("key", "rebind", "demo", "demo-key", "--yes"),
        "key release": ("key", "release", "demo", "demo-key", "--yes"),
        "key disable": ("key", "disable", "demo", "demo-key", "--yes"),
        "key enable": ("key", "enable", "demo", "demo-key", "--yes"),
        "key disable --rehearse": ("key", "disable", "demo", "demo-key", "--rehearse"),
        "keystore block --rehearse": ("keystore", "block", "--all", "--rehearse"),
        "key usage": ("key", "usage"),
        "key usage --unused": ("key", "usage", "--unused", "90d"),
    }
    assert set(SHAPES) - set(calls) == {
        "prove", "doctor", "config check", "migrate aws-sample", "authorization test", "authorization replay",
    }  # fmt: skip
    for command, arguments in calls.items():
        document = run(*arguments, "--json", "--config", config).ok().json
        form, fields = SHAPES[command]
        rows = document if isinstance(document, list) else [document]
        assert rows, command
        assert form == ("array" if isinstance(document, list) else "object"), command
        assert [tuple(row) for row in rows] == [fields] * len(rows), command


def test_doctor_finds_a_key_that_is_also_the_health_key(run: Run, config: Path) -> None:
    """Registering it is refused, but `health_key` can be changed afterwards."""
    config.write_text(config.read_text().replace('health_key = "holdfast-health"', 'health_key = "demo-key"'))
    done = run("doctor", "--json", "--config", config)
    assert done.code == ExitCode.ERRORS
    named = [one["subject"] for one in done.json["findings"] if one["code"] == "health-key-registered"]
    assert named == ["key demo/demo-key"]
