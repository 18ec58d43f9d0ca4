"""A file that others can change is not relied on: the file itself, each directory above it, each link on the way."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.policy.samples import PERMIT

from holdfast.config.errors import ConfigurationError
from holdfast.config.policies import read_policies
from holdfast.config.safe_path import distrust

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file two directories down, beside a directory `other`."""
    (tmp_path / "other").mkdir()
    (tmp_path / "one" / "two").mkdir(parents=True)
    path = tmp_path / "one" / "two" / "holdfast.toml"
    path.touch()
    for place in (path, *path.parents[:2], tmp_path / "other"):
        place.chmod(place.stat().st_mode & ~0o022)
    return path


def test_a_file_of_the_callers_own_is_trusted(file: Path) -> None:
    assert distrust(file) == ""


@pytest.mark.parametrize("mode", [0o002, 0o020])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_others_who_can_write_file_or_directory_are_named(
    file: Path, above: int, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.config.safe_path.is_private_group", lambda *_: False)
    place = (file, *file.parents)[above]
    place.chmod(place.stat().st_mode | mode)
    assert f"chmod go-w {place}`" in distrust(file)


@as_root
@pytest.mark.parametrize("above", [0, 1, 2])
def test_another_owner_of_file_or_directory_is_named(file: Path, above: int) -> None:
    place = (file, *file.parents)[above]
    os.chown(place, NOBODY, -1)
    assert f"{place} belongs to nobody" in distrust(file)


def in_a_bad_directory(link: Path) -> None:
    link.parent.chmod(0o777)


def pointing_into_a_bad_directory(link: Path) -> None:
    link.resolve().parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [in_a_bad_directory, pointing_into_a_bad_directory])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_followed_and_looked_at(file: Path, spoil: Callable[[Path], None], *, relative: bool) -> None:
    link = file.parents[2] / "other" / "link.toml"
    link.symlink_to(Path("../one/two/holdfast.toml") if relative else file)
    assert distrust(link) == ""
    spoil(link)
    assert "chmod go-w" in distrust(link)


@as_root
def test_a_link_of_another_user_is_named(file: Path) -> None:
    link = file.parents[2] / "other" / "link.toml"
    link.symlink_to(file)
    os.chown(link, NOBODY, -1, follow_symlinks=False)
    assert f"{link} belongs to nobody" in distrust(link)


def test_a_directory_like_tmp_is_trusted_for_its_sticky_bit(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert distrust(file) == ""


@pytest.mark.parametrize("strange", ["missing", "a loop"])
def test_what_cannot_be_opened_is_left_to_whoever_opens_it(tmp_path: Path, strange: str) -> None:
    path = tmp_path / "holdfast.toml"
    if strange == "a loop":
        path.symlink_to(path)
    assert distrust(path) == ""


def test_policies_that_others_can_change_are_refused(tmp_path: Path) -> None:
    policies = tmp_path / "policies.cedar"
    policies.write_text(PERMIT)
    assert read_policies(policies).text == PERMIT
    policies.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"is not used: .*chmod go-w"):
        read_policies(policies)


@pytest.mark.programs
@as_root
def test_the_mode_of_what_is_mounted_read_only_is_of_no_concern(tmp_path: Path) -> None:
    """Kubernetes makes the directory of a ConfigMap 0777 and mounts it read-only."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0777", "none", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        path = tmp_path / "holdfast.toml"
        path.touch()
        assert "chmod go-w" in distrust(path)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        assert distrust(path) == ""
    finally:
        subprocess.run(["umount", tmp_path], check=True)
