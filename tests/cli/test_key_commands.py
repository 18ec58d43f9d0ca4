"""`holdfast key` on real SoftHSM: a key is made in the HSM or looked at there before it is registered."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tools.docs.shapes import SHAPES

from holdfast.catalog.errors import Unavailable
from holdfast.catalog.store import Catalog
from holdfast.cli.exit_codes import ExitCode


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A setup by `holdfast init`, in a process of its own."""
    directory = tmp_path_factory.mktemp("setup") / "state"
    subprocess.run(
        [sys.executable, "-m", "holdfast", "init", "--directory", str(directory)],
        check=True,
        capture_output=True,
        timeout=60,
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
        timeout=30,
        env={"SOFTHSM2_CONF": str(directory / "softhsm2.conf"), "PATH": "/usr/bin:/bin"},
    )


def test_create_makes_and_registers(run: Run, config: Path) -> None:
    made = run("key", "create", "demo", "second", "--json", "--config", config).ok().json
    assert made.pop("created_at").endswith("Z")
    cka_id = made.pop("cka_id")
    assert len(bytes.fromhex(cka_id)) == 16
    assert made == {
        "keystore": "demo",
        "external_key_id": "second",
        "status": "ENABLED",
        "generation": 1,
        "hsm": "softhsm",
        "label": "second",
        "takeover": None,
        "encryptions_at_most": 0,
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
    """Also: an HSM key may serve a second keystore, as two AWS accounts may share one."""
    run("keystore", "create", "other", "--config", config).ok()
    done = run("key", "register", "other", "demo-key", "--config", config).ok()
    assert "Registered the key demo-key" in done.err
    assert "warning" not in done.err


def test_register_warns_in_words(run: Run, config: Path) -> None:
    tool(config, "--keygen", "--key-type", "AES:32", "--label", "loose", "--extractable", "--usage-decrypt")
    done = run("key", "register", "demo", "loose", "--config", config).ok()
    assert "may leave the HSM" in done.err
    assert "CKA_EXTRACTABLE" in done.err


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
    register = Catalog.register_key

    def commits_and_fails(*arguments: Any, **options: Any) -> None:
        register(*arguments, **options)
        raise Unavailable("the connection broke")

    monkeypatch.setattr(Catalog, "register_key", commits_and_fails)
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

    monkeypatch.setattr(Catalog, "register_key", interrupted)
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
        patch.setattr(Catalog, "register_key", down)
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
        "keystore block": ("keystore", "block", "--all", "--yes"),
        "keystore unblock": ("keystore", "unblock", "--all", "--yes"),
        "credential issue": ("credential", "issue", "demo"),
        "credential issue --show-secret": ("credential", "issue", "demo", "--show-secret"),
        "credential list": ("credential", "list"),
        "credential retire": ("credential", "retire", credential["access_key_id"], "--yes"),
        "key create": ("key", "create", "demo", "extra"),
        "key register": ("key", "register", "extra", "demo-key"),
        "key list": ("key", "list"),
        "key show": ("key", "show", "demo", "demo-key"),
        "key disable": ("key", "disable", "demo", "demo-key", "--yes"),
        "key enable": ("key", "enable", "demo", "demo-key", "--yes"),
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
