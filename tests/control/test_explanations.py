"""Plans name who is reached, and warn where KMS would be locked out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.control.explanations import Usage, explain_block, explain_retire, moment
from holdfast.store.reads import CredentialRow, KeystoreRow
from holdfast.xks.types import UriPathPrefix

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(days=90)
CREDENTIAL = CredentialRow("OLDACCESSKEYID2345672345", "alpha", "file:x", OLD, None, None)
OTHER = replace(CREDENTIAL, access_key_id="NEWACCESSKEYID2345672345")


def warnings(*others: CredentialRow, last_used_at: datetime | None = None) -> str:
    credential = replace(CREDENTIAL, last_used_at=last_used_at)
    plan = explain_retire(credential, Usage([credential, *others], [], NOW))
    return "\n".join(line for line in plan.impact if line.startswith("WARNING"))


def test_unused_credential_beside_a_used_one_is_retired_without_warning() -> None:
    assert warnings(replace(OTHER, last_used_at=NOW)) == ""


def test_recent_use_is_a_warning() -> None:
    assert "last 24 hours" in warnings(replace(OTHER, last_used_at=NOW), last_used_at=NOW - timedelta(hours=3))


def test_last_credential_is_a_warning() -> None:
    assert "the only live credential" in warnings()


@pytest.mark.parametrize(
    "other", [replace(OTHER, retired_at=NOW), replace(OTHER, keystore="beta")], ids=["retired", "of another keystore"]
)
def test_what_does_not_count_as_another_credential(other: CredentialRow) -> None:
    assert "the only live credential" in warnings(other)


def test_other_credential_that_kms_never_used_is_a_warning() -> None:
    assert "none of the keystore's other credentials has ever been used" in warnings(OTHER)


def test_block_names_each_keystore_and_its_last_use() -> None:
    rows = [KeystoreRow(name, UriPathPrefix(f"/{name}"), None, False, OLD) for name in ("alpha", "beta")]
    plan = explain_block(rows, Usage([replace(CREDENTIAL, last_used_at=NOW - timedelta(minutes=5))], [], NOW), None)
    assert plan.title == "Block 2 keystores:"
    assert plan.changes == (
        "alpha (0 keys, now open, last called 5 minutes ago)",
        "beta (0 keys, now open, never called)",
    )


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (None, "never"),
        (NOW, "just now"),
        (NOW - timedelta(seconds=60), "1 minute ago"),
        (NOW - timedelta(hours=23, minutes=59), "23 hours ago"),
        (NOW - timedelta(days=2), "2 days ago"),
    ],
)
def test_moments(at: datetime | None, words: str) -> None:
    assert moment(at, NOW) == words
