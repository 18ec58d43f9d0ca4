"""Keystores and credentials, with a catalog and without a working HSM, TLS file or PIN: break-glass needs none."""

import os
import pty
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode
from holdfast.store.errors import Unavailable
from holdfast.store.store import Catalog


@pytest.fixture
def config(run: Run, catalog_only: Path) -> Path:
    run("keystore", "create", "alpha", "--config", catalog_only).ok()
    run("keystore", "create", "beta", "--prefix", "", "--region", "eu-central-1", "--config", catalog_only).ok()
    return catalog_only


def issue(run: Run, config: Path, keystore: str = "alpha") -> str:
    access_key_id = run("credential", "issue", keystore, "--json", "--config", config).ok().json["access_key_id"]
    assert isinstance(access_key_id, str)
    return access_key_id


# ---- keystores


def test_keystore_list_json_shape(run: Run, config: Path) -> None:
    rows = run("keystore", "list", "--json", "--config", config).ok().json
    created = [row.pop("created_at") for row in rows]
    assert all(text.endswith("Z") for text in created)
    assert rows == [
        {
            "name": "alpha",
            "xks_proxy_uri_path": "/alpha/kms/xks/v1",
            "region": None,
            "blocked": False,
            "blocked_until": None,
            "keys": 0,
            "live_credentials": 0,
            "last_used_at": None,
        },
        {
            "name": "beta",
            "xks_proxy_uri_path": "/kms/xks/v1",
            "region": "eu-central-1",
            "blocked": False,
            "blocked_until": None,
            "keys": 0,
            "live_credentials": 0,
            "last_used_at": None,
        },
    ]


def test_keystore_show_is_one_row_of_the_list(run: Run, config: Path) -> None:
    rows = run("keystore", "list", "--json", "--config", config).ok().json
    assert run("keystore", "show", "beta", "--json", "--config", config).ok().json == rows[1]


def test_table_is_data_and_has_every_keystore(run: Run, config: Path) -> None:
    out = run("keystore", "list", "--config", config).ok().out
    assert "alpha" in out
    assert "/kms/xks/v1" in out


def test_table_cuts_nothing_off(run: Run, config: Path) -> None:
    name = "a-keystore-whose-name-is-as-long-as-names-of-keystores-may-be-x"
    run("keystore", "create", name, "--config", config).ok()
    assert f"/{name}/kms/xks/v1" in run("keystore", "list", "--config", config).ok().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "alpha"), ExitCode.CONFLICT),
        (("create", "gamma", "--prefix", "no-slash"), ExitCode.CONFIGURATION),
        (("show", "gamma"), ExitCode.NOT_FOUND),
        (("block", "gamma", "--yes"), ExitCode.NOT_FOUND),
        (("config", "alpha", "--show-secret"), ExitCode.NOT_FOUND),
        (("block", "--yes"), ExitCode.USAGE),
        (("block", "alpha", "--all", "--yes"), ExitCode.USAGE),
        (("create", "No Name"), ExitCode.CONFIGURATION),
        (("create", "gamma", "--region", "EU!"), ExitCode.CONFIGURATION),
    ],
)
def test_refusals(run: Run, config: Path, arguments: tuple[str, ...], code: ExitCode) -> None:
    done = run("keystore", *arguments, "--config", config)
    assert (done.code, done.out) == (code, "")
    assert "holdfast: error: " in done.err


def test_a_wrong_name_is_told_as_one(run: Run, config: Path) -> None:
    """Not as a wrong path prefix, which the person never gave."""
    assert "'No Name' is not a keystore name" in run("keystore", "create", "No Name", "--config", config).err


def test_show_says_never_and_any_in_words(run: Run, config: Path) -> None:
    lines = run("keystore", "show", "alpha", "--config", config).ok().out.splitlines()
    assert {"region: any", "blocked: no", "last used at: never"} <= set(lines)


# ---- plans


def blocked(run: Run, config: Path) -> list[bool]:
    return [row["blocked"] for row in run("keystore", "list", "--json", "--config", config).ok().json]


def test_block_without_terminal_and_yes_changes_nothing(run: Run, config: Path) -> None:
    done = run("keystore", "block", "alpha", "--config", config)
    assert done.code == ExitCode.UNCONFIRMED
    assert "KMSInvalidStateException" in done.err
    assert "--yes" in done.err
    assert blocked(run, config) == [False, False]


def test_block_and_unblock_with_yes(run: Run, config: Path) -> None:
    run("keystore", "block", "alpha", "--yes", "--config", config).ok()
    assert blocked(run, config) == [True, False]
    run("keystore", "unblock", "alpha", "--yes", "--config", config).ok()
    assert blocked(run, config) == [False, False]


def test_break_glass_blocks_every_keystore(run: Run, config: Path) -> None:
    done = run("keystore", "block", "--all", "--yes", "--json", "--config", config).ok()
    assert done.json == [
        {"name": "alpha", "blocked": True, "changed": True},
        {"name": "beta", "blocked": True, "changed": True},
    ]
    assert blocked(run, config) == [True, True]


def test_what_is_so_already_needs_no_plan(run: Run, config: Path) -> None:
    done = run("keystore", "unblock", "alpha", "--json", "--config", config).ok()
    assert done.json == [{"name": "alpha", "blocked": False, "changed": False}]


@pytest.mark.programs
@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", ExitCode.OK), ("n\n", ExitCode.UNCONFIRMED), ("\n", ExitCode.UNCONFIRMED)]
)
def test_person_at_a_terminal_is_asked(run: Run, config: Path, answer: str, code: ExitCode) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", "keystore", "block", "alpha", "--config", str(config)],
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code, done.stderr
    assert blocked(run, config) == [code is ExitCode.OK, False]


# ---- credentials


def test_credential_list_json_shape(run: Run, config: Path) -> None:
    access_key_id = issue(run, config)
    (row,) = run("credential", "list", "--json", "--config", config).ok().json
    assert row.pop("created_at").endswith("Z")
    assert row == {
        "access_key_id": access_key_id,
        "keystore": "alpha",
        "state": "live",
        "secret_ref": f"file:{access_key_id}",
        "last_used_at": None,
        "retired_at": None,
    }


def test_secret_is_shown_only_when_asked_for(run: Run, config: Path) -> None:
    shown = run("credential", "issue", "alpha", "--show-secret", "--json", "--config", config).ok().json
    secret = shown["secret_access_key"]
    assert len(secret) == 44
    quiet = [
        run("credential", "issue", "alpha", "--config", config),
        run("credential", "list", "--config", config),
        run("credential", "list", "--json", "--config", config),
        run("keystore", "show", "alpha", "--config", config),
    ]
    kept = [path.read_text().strip() for path in (config.parent / "secrets").iterdir()]
    assert secret in kept
    assert not [text for text in kept for done in quiet if text in done.ok().out + done.err]


def test_secret_file_is_new_and_private(run: Run, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    run("credential", "issue", "alpha", "--output", file, "--config", config).ok()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = run("credential", "issue", "alpha", "--output", file, "--config", config)
    assert done.code == ExitCode.CONFLICT
    assert len(run("credential", "list", "--json", "--config", config).ok().json) == 1


def test_retiring_the_only_credential_warns_and_asks(run: Run, config: Path) -> None:
    access_key_id = issue(run, config)
    done = run("credential", "retire", access_key_id, "--config", config)
    assert done.code == ExitCode.UNCONFIRMED
    assert "last used never" in done.err
    assert "WARNING: it is the only live credential" in done.err


def test_retired_credential_stays_listed(run: Run, config: Path) -> None:
    access_key_id = issue(run, config)
    issue(run, config)
    run("credential", "retire", access_key_id, "--yes", "--config", config).ok()
    states = {
        row["access_key_id"]: row["state"] for row in run("credential", "list", "--json", "--config", config).json
    }
    assert states.pop(access_key_id) == "retired"
    assert list(states.values()) == ["live"]
    again = run("credential", "retire", access_key_id, "--config", config).ok()
    assert "retired already" in again.err


def test_a_secret_that_cannot_be_written_issues_nothing(run: Run, config: Path, tmp_path: Path) -> None:
    """Otherwise a live credential stays behind of which nobody was told."""
    assert run("credential", "issue", "alpha", "--output", tmp_path / "no" / "such", "--config", config).code != 0
    assert run("credential", "list", "alpha", "--json", "--config", config).json == []


def test_a_credential_that_is_not_issued_leaves_no_file(run: Run, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert run("credential", "issue", "none-such", "--output", file, "--config", config).code == ExitCode.NOT_FOUND
    assert not file.exists()


# ---- what KMS is given


def test_kms_configuration_file_is_the_specs(run: Run, config: Path) -> None:
    """Spec, "XKS proxy configuration in AWS KMS console"."""
    access_key_id = issue(run, config)
    document = run("keystore", "config", "alpha", "--show-secret", "--config", config).ok().json
    secret = (config.parent / "secrets" / access_key_id).read_text().strip()
    assert document == {
        "XksProxyUriPath": "/alpha/kms/xks/v1",
        "XksProxyAuthenticationCredential": {"AccessKeyId": access_key_id, "RawSecretAccessKey": secret},
    }


def test_kms_files_are_private_and_the_line_holds_no_secret(run: Run, config: Path, tmp_path: Path) -> None:
    access_key_id = issue(run, config)
    secret = (config.parent / "secrets" / access_key_id).read_text().strip()
    file = tmp_path / "console.json"
    done = run(
        "keystore", "config", "alpha", "--output", file, "--endpoint", "https://xks.example.com", "--config", config
    ).ok()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, tmp_path / "console.credential.json")] == [0o600] * 2
    assert "aws kms create-custom-key-store" in done.out
    assert "https://xks.example.com" in done.out
    assert secret not in done.out + done.err
    assert "aws kms update-custom-key-store" in done.out
    assert f"The credential {access_key_id}" in done.err


def test_no_secret_is_printed_unasked(run: Run, config: Path) -> None:
    access_key_id = issue(run, config)
    secret = (config.parent / "secrets" / access_key_id).read_text().strip()
    done = run("keystore", "config", "alpha", "--config", config)
    assert done.code == ExitCode.USAGE
    assert "--show-secret" in done.err
    assert secret not in done.out + done.err


def test_kms_is_not_given_an_older_credential_in_silence(run: Run, config: Path) -> None:
    """Given to KMS in place of the newest, and retired afterwards, it would be an outage."""
    older, newest = issue(run, config), issue(run, config)
    (config.parent / "secrets" / newest).unlink()
    done = run("keystore", "config", "alpha", "--show-secret", "--config", config)
    assert (done.code, done.out) == (ExitCode.NOT_FOUND, "")
    assert f"the secret of the newest credential cannot be read here: the credential {newest}" in done.err
    assert f"--access-key-id {older}" in done.err
    chosen = run("keystore", "config", "alpha", "--show-secret", "--access-key-id", older, "--config", config).ok()
    assert chosen.json["XksProxyAuthenticationCredential"]["AccessKeyId"] == older


ENDPOINTS = [
    "xks.example.com",
    "http://xks.example.com",
    "https://xks.example.com:8443",
    "https://10.0.0.1",
    "https://",
]


@pytest.mark.parametrize("endpoint", [*ENDPOINTS, "https://xks.example.com/prod", "https://localhost", "https://[x"])
def test_an_endpoint_that_kms_would_refuse_is_refused(run: Run, config: Path, endpoint: str) -> None:
    issue(run, config)
    done = run("keystore", "config", "alpha", "--show-secret", "--endpoint", endpoint, "--config", config)
    assert (done.code, done.out) == (ExitCode.CONFIGURATION, "")
    assert "--endpoint https://xks.example.com" in done.err


# ---- changing and deleting keystores


def test_a_keystore_is_changed_after_its_plan(run: Run, config: Path) -> None:
    refused = run("keystore", "set", "alpha", "--prefix", "/moved", "--region", "eu-central-1", "--config", config)
    assert refused.code == ExitCode.UNCONFIRMED
    assert "URI path /alpha/kms/xks/v1 becomes /moved/kms/xks/v1" in refused.err
    assert "region any becomes eu-central-1" in refused.err
    options = ("--prefix", "/moved", "--region", "eu-central-1", "--yes", "--json")
    row = run("keystore", "set", "alpha", *options, "--config", config).ok().json
    assert (row["xks_proxy_uri_path"], row["region"]) == ("/moved/kms/xks/v1", "eu-central-1")
    assert (
        run("keystore", "set", "alpha", "--region", "", "--yes", "--json", "--config", config).json["region"] is None
    )
    assert run("keystore", "set", "alpha", "--yes", "--config", config).code == ExitCode.USAGE


def test_a_region_that_cannot_be_is_refused_before_a_plan_is_shown(run: Run, config: Path) -> None:
    done = run("keystore", "set", "alpha", "--region", "frankfurt", "--config", config)
    assert "'frankfurt' is not the name of an AWS region" in done.err
    assert "What this means" not in done.err


def test_a_block_says_that_no_node_runs(run: Run, config: Path) -> None:
    for named in (("alpha",), ("--all",)):
        done = run("keystore", "block", *named, "--yes", "--config", config).ok()
        assert "blocked in the catalog" in done.err
        assert "No node is running" in done.err
    again = run("keystore", "block", "alpha", "--yes", "--config", config).ok()
    assert "alpha is blocked in the catalog already." in again.err
    assert "No node" not in again.err


def test_a_command_does_not_wait_for_nodes_if_it_is_told_not_to(run: Run, config: Path) -> None:
    done = run("keystore", "block", "alpha", "--yes", "--no-wait", "--config", config).ok()
    assert "node" not in done.err


def test_only_an_empty_keystore_is_deleted(run: Run, config: Path) -> None:
    access_key_id = issue(run, config)
    refused = run("keystore", "delete", "alpha", "--yes", "--config", config)
    assert "is not empty (keys: 0, live credentials: 1)" in refused.err
    assert refused.code != 0
    run("credential", "retire", access_key_id, "--yes", "--config", config).ok()
    assert run("keystore", "delete", "alpha", "--config", config).code == ExitCode.UNCONFIRMED
    run("keystore", "delete", "alpha", "--yes", "--config", config).ok()
    assert [row["name"] for row in run("keystore", "list", "--json", "--config", config).json] == ["beta"]


def test_a_block_that_cannot_be_written_says_what_to_do_instead(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Unavailable("the catalog does not answer: database or disk is full")

    monkeypatch.setattr(Catalog, "changing", full)
    done = run("keystore", "block", "--all", "--yes", "--config", config)
    assert done.code == ExitCode.CATALOG
    assert "NOTHING IS BLOCKED" in done.err
    assert "systemctl stop holdfast" in done.err


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM catalog",
        "UPDATE catalog SET version = 9223372036854775807",
        "UPDATE catalog SET version = 'x'",
        "DROP TABLE key_generations",
        "DROP TABLE credentials",
        "DROP TABLE changes",
    ],
)
def test_break_glass_works_in_a_damaged_catalog(run: Run, config: Path, damage: str) -> None:
    with closing(sqlite3.connect(config.parent / "catalog.db")) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(damage)
        connection.commit()
    done = run("keystore", "block", "--all", "--yes", "--config", config).ok()
    assert "alpha is blocked in the catalog." in done.err
    with closing(sqlite3.connect(config.parent / "catalog.db")) as connection:
        assert connection.execute("SELECT blocked FROM keystores").fetchall() == [(1,), (1,)]


# ---- prove


@pytest.mark.parametrize(
    "options",
    [
        ("--endpoint", "proxy.example.com"),
        ("--endpoint", "https://proxy.example.com:port"),
        ("--endpoint", "https://proxy.example.com/prefix"),
        ("--endpoint", "ftp://proxy.example.com"),
        ("--ca", "no-such.pem"),
        ("--ca", os.devnull),
    ],
)
def test_prove_says_which_value_is_wrong(run: Run, config: Path, options: tuple[str, str]) -> None:
    issue(run, config)
    done = run("prove", "alpha", "key", *options, "--config", config)
    assert (done.code, done.out) == (ExitCode.CONFIGURATION, "")
    assert options[1] in done.err
    assert "hint: " in done.err
