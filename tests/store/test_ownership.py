"""What root makes for the service belongs to the service's user: else it could not read it (use.md, day 2, 3)."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.administered import Catalog

from holdfast.control.issue import new_access_key_id, new_secret
from holdfast.xks.types import UriPathPrefix

SERVICE = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def test_all_files_that_root_makes_belong_to_the_owner_of_their_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, SERVICE, SERVICE)
    url, secrets = f"sqlite:///{state}/db/catalog.db", state / "secrets"
    with closing(Catalog.create_or_upgrade(url, secrets, now=lambda: datetime.now(UTC))) as catalog:
        catalog.create_keystore("prod", UriPathPrefix.parse("/prod"))
        identity, secret = new_access_key_id(), new_secret()
        catalog.issue_credential("prod", (identity, secret))
        made = {path: path.stat() for path in state.rglob("*")}  # with SQLite's own, while it is open
    assert {state / "db" / "catalog.db", secrets / str(identity)} <= made.keys()
    assert {(found.st_uid, found.st_gid) for found in made.values()} == {(SERVICE, SERVICE)}
    assert {found.st_mode & 0o077 for found in made.values()} == {0}


def test_files_in_a_directory_of_roots_own_stay_roots(tmp_path: Path) -> None:
    with closing(
        Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/catalog.db", tmp_path, now=lambda: datetime.now(UTC))
    ):
        assert (tmp_path / "catalog.db").stat().st_uid == 0
