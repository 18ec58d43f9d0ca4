"""What is no file, or not the one that is meant, where a command takes a file: said at once, and nothing is done."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.cli.conftest import Run

VERIFIER_KEY = "example.com/foo+e4fb31b3+AQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUF"
URL = "https://localhost:1/demo/kms/xks/v1"
TEST = ("authorization", "test", "--keystore", "k", "--key", "k", "--operation", "Encrypt", "--principal")


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def binary(path: Path) -> None:
    path.write_bytes(b"\xe9\xff\x00\n" * 100)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 32)  # takes no room


WRONG = (directory, fifo, dangling, loop, binary, huge)


@pytest.mark.parametrize(
    "command",
    [
        ("config", "check", "--config"),
        ("rules", "set", "--yes", "--approval"),
        ("rules", "set", "--yes", "--authorization"),
        ("operator", "enrol", "bob", "--yes", "--role", "viewer", "--key"),
        ("catalog", "import", "--yes"),
        ("catalog", "export", "--output"),
        (*TEST, "arn:aws:iam::123456789012:user/A", "--policies"),
        ("audit", "verify", "--key", VERIFIER_KEY),
        ("audit", "verify", ".", "--key", VERIFIER_KEY, "--earlier"),
        ("audit", "verify", ".", "--key"),
        ("audit", "check-proof", "--key", VERIFIER_KEY),
        ("audit", "reconcile", ".", "--key", VERIFIER_KEY, "--cloudtrail"),
        ("audit", "witness", "w", "--directory", "w", "--log", VERIFIER_KEY, "--key-file"),
        ("migrate", "aws-sample", "--directory", "migrated"),
        ("check", URL, "--proxy-config"),
        ("kms", "--listen", "127.0.0.1:0", "--ca"),
        ("kms", "--listen", "127.0.0.1:0", "--seed"),
        ("kms", "--listen", "127.0.0.1:0", "--tls-key", "no-such", "--tls-certificate"),
    ],
    ids=" ".join,
)
def test_what_is_not_the_file_is_refused_at_once(
    run: "Run", catalog_only: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOLDFAST_CONFIG", str(catalog_only))
    monkeypatch.chdir(catalog_only.parent)
    before = catalog_only.with_name("catalog.db").read_bytes()
    for make in WRONG:
        path = Path(f"{make.__name__}.json")
        make(path)
        done = run(*command, path)
        assert done.code in (ExitCode.CONFIGURATION, ExitCode.CONFLICT, ExitCode.EVIDENCE), (path, done.err)
        assert "holdfast: error: " in done.err
        assert "is not a verifier key" not in done.err or command[-1] == "--key"
    assert catalog_only.with_name("catalog.db").read_bytes() == before


def test_the_file_of_windows_editors_is_a_configuration(run: "Run", catalog_only: Path) -> None:
    text = catalog_only.read_text()
    catalog_only.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    run("keystore", "list", "--config", catalog_only).ok()


def test_a_pipe_of_the_shell_is_a_file(run: "Run", catalog_only: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'[[rule]]\nactions = ["keystore unblock"]\nneeds = ["approver"]\n')
    os.close(writer)
    try:
        done = run("rules", "set", "--approval", f"/dev/fd/{reader}", "--config", catalog_only)
    finally:
        os.close(reader)
    assert "cannot be read: It is a pipe" not in done.err


def test_a_log_without_an_event_decides_nothing(run: "Run", catalog_only: Path) -> None:
    policies = catalog_only.with_name("p.cedar")
    policies.write_text("permit(principal, action, resource);")
    done = run("authorization", "replay", policies, "--policies", policies)
    assert (done.code, "no event in it" in done.err) == (ExitCode.CONFIGURATION, True)
