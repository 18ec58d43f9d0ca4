"""Files that hold secrets are private, whole, and never written over unasked."""

import os
import stat
from pathlib import Path

import pytest

from holdfast.control import files
from holdfast.control.errors import Conflict


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("write", [files.create_file, files.replace_file])
def test_secret_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, write: object) -> None:
    assert callable(write)
    before = os.umask(0)
    try:
        write(tmp_path / "secret", b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "secret") == 0o600


def test_created_file_never_replaces_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(b"old")
    with pytest.raises(Conflict):
        files.create_file(tmp_path / "pin", b"new")
    assert (tmp_path / "pin").read_bytes() == b"old"


def test_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(tmp_path / "ca.pem", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("ca.pem", b"old")]


def test_private_directory_is_0700(tmp_path: Path) -> None:
    assert mode(files.private_directory(tmp_path / "state")) == 0o700
