"""`holdfast key usage` and `--rehearse`: what a person is shown of the use of keys."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from tests.administered import Catalog
from tests.store.samples import ID, KEY, OTHER_KEY, PREFIX, SECRET

from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.store import schema
from holdfast.store.usage import Used

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Run

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN = ARN.replace("111122223333", "444455556666")
ROLE = "arn:aws:sts::111122223333:assumed-role/app"
S3 = "s3.eu-central-1.amazonaws.com"


@pytest.fixture
def catalog(catalog_only: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """Two keys, registered long ago and not used, and a credential; it is NOW, and use is recorded since today."""
    monkeypatch.setattr(output, "utc_now", lambda: NOW)
    url = f"sqlite:///{catalog_only.parent}/catalog.db"
    with closing(Catalog.open(url, catalog_only.parent / "secrets", now=lambda: NOW - timedelta(days=200))) as made:
        with made._engine.begin() as connection:
            connection.execute(update(schema.usage_tracking).values(since=NOW - timedelta(hours=1)))
        made.create_keystore("main", PREFIX)
        made.issue_credential("main", (ID, SECRET))
        for key in (KEY, OTHER_KEY):
            made.register_key("main", key, hsm="main", label=key.value)
        yield made


def use(catalog: Catalog, *, arn: str = ARN, ago: timedelta = timedelta(), requests: int = 1, **more: str) -> None:
    at = NOW - ago
    day = (at.date() - date(1970, 1, 1)).days
    for kind in (more.get("kind", "encrypt"), "decrypt"):
        catalog.record_usage(
            [Used("main", KEY.value, 1, arn, kind, day, f"{ROLE}/i-1", S3, requests, at.timestamp(), at.timestamp())]
        )


def test_a_key_shows_who_asked_when(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog, requests=30)
    use(catalog, arn=OTHER_ARN, ago=timedelta(days=3, minutes=1))
    done = run("key", "usage", "main", KEY.value, "--config", catalog_only).ok()
    assert done.out.splitlines()[1:9] == [
        f"  {ARN}",
        "    requests served a day: 60",
        "    encrypts: 30, last just now",
        "    decrypts: 30, last just now",
        "    refused: 0",
        f"    principal {ROLE}/*",
        "      60 requests, last just now",
        f"    service {S3}",
    ]
    assert "    encrypts: 1, last 3 days ago" in done.out
    assert "No use seen is no proof of none" in done.err
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_has_all_that_is_kept(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog, requests=2)
    found = run("key", "usage", "main", KEY.value, "--json", "--config", catalog_only).ok().json
    assert found["requests_lost"] == 0
    (generation,) = found["generations"]
    (kms_key,) = generation["kms_keys"]
    assert (kms_key["kms_key_arn"], kms_key["encrypts"]["count"], kms_key["refusals"]["last_at"]) == (ARN, 2, None)
    assert [(caller["kind"], caller["requests"]) for caller in kms_key["callers"]] == [
        ("principal", 4),
        ("service", 4),
    ]
    assert list(kms_key["days"].values()) == [{"encrypts": 2, "decrypts": 2, "refusals": 0}]


def test_the_overview_has_a_line_for_each_generation(
    run: Run, catalog_only: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(catalog)
    monkeypatch.setenv("COLUMNS", "80")
    done = run("key", "usage", "--config", catalog_only).ok()
    head, used, unused = done.out.splitlines()
    assert head.split() == ["KEY", "GENERATION", "KMS", "KEYS", "A", "DAY", "LAST", "ENCRYPT", "LAST", "DECRYPT"]
    assert used.split() == ["main/key-1", "1", "active", "1", "2", "just", "now", "just", "now"]
    assert unused.split() == ["main/key-2", "1", "active", "0", "0", "never", "never"]


def test_what_is_unused_is_listed(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog, ago=timedelta(days=100))
    done = run("key", "usage", "--unused", "90d", "--json", "--config", catalog_only).ok()
    found = [(one["kind"], one["name"]) for one in done.json["unused"]]
    assert found == [("key", KEY.value), ("key", OTHER_KEY.value), ("credential", ID.value)]
    use(catalog, kind="refusal", ago=timedelta(days=80))
    catalog.record_use({ID.value: NOW})
    done = run("key", "usage", "--unused", "90d", "--config", catalog_only).ok()
    assert [line.split()[:3] for line in done.out.splitlines()[1:]] == [["key", "main", OTHER_KEY.value]]
    assert "use of keys is recorded only since" in done.err
    none = run("key", "usage", "--unused", "300d", "--config", catalog_only).ok()
    assert (none.out, "Nothing that is older than 300d is unused." in none.err) == ("", True)


def test_a_rehearsal_names_who_would_stop_and_changes_nothing(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog)
    use(catalog, arn=OTHER_ARN)
    before = catalog.version()
    done = run("keystore", "block", "--all", "--rehearse", "--config", catalog_only).ok()
    assert f"{ARN}\n  through main/{KEY.value}; last used just now; 2 a day\n" in done.out
    assert "This would stop: 2 KMS keys, 2 accounts, 1 service, 1 principal." in done.err
    assert f"Keys of which no use was seen: main/{OTHER_KEY.value}." in done.err
    assert "No use seen is no proof of none" in done.err
    found = run("keystore", "block", "main", "--rehearse", "--json", "--config", catalog_only).ok().json
    assert (found["accounts"], found["services"]) == (["111122223333", "444455556666"], [S3])
    assert (catalog.version(), catalog.keystores()[0].blocked) == (before, False)


def test_the_rehearsal_of_a_key_is_of_that_key_alone(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog)
    arguments = ("--rehearse", "--json", "--config", catalog_only)
    found = run("key", "disable", "main", KEY.value, *arguments).ok().json
    assert [one["kms_key_arn"] for one in found["kms_keys"]] == [ARN]
    other = run("key", "disable", "main", OTHER_KEY.value, *arguments).ok().json
    assert (other["kms_keys"], [one["external_key_id"] for one in other["keys_without_use"]]) == (
        [],
        [OTHER_KEY.value],
    )
    assert run("key", "disable", "main", "none", *arguments).code == ExitCode.NOT_FOUND
    assert run("keystore", "block", "none", *arguments).code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("arguments", [("main", "--unused", "90d"), ("--reencrypt",), ("main", "--reencrypt")])
def test_options_that_do_not_fit_are_refused(run: Run, catalog_only: Path, arguments: tuple[str, ...]) -> None:
    assert run("key", "usage", *arguments, "--config", catalog_only).code == ExitCode.USAGE


def test_nothing_to_re_encrypt_is_said(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog)
    done = run("key", "usage", "main", KEY.value, "--reencrypt", "--config", catalog_only)
    assert (done.code, "has one generation in use" in done.err) == (ExitCode.CONFLICT, True)
