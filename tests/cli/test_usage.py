"""`holdfast key usage` and `--rehearse`: what a person is shown of the use of keys."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update
from tests.administered import Catalog
from tests.store.samples import ID, KEY, OTHER_KEY, PREFIX, SECRET

from holdfast.cli import options, output
from holdfast.cli.exit_codes import ExitCode
from holdfast.keys.proof import Proof
from holdfast.keys.states import GenerationState
from holdfast.store import rotation, schema
from holdfast.store.usage import Used

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Result, Run

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN = ARN.replace("111122223333", "444455556666")
ROLE = "arn:aws:sts::111122223333:assumed-role/app"
S3 = "s3.eu-central-1.amazonaws.com"


@pytest.fixture
def catalog(catalog_only: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """Two keys, registered long ago and not used, and a credential; it is NOW, and use is recorded since today."""
    monkeypatch.setattr(output, "utc_now", lambda: NOW)
    monkeypatch.setattr(options, "utc_now", lambda: NOW)
    url = f"sqlite:///{catalog_only.parent}/catalog.db"
    with closing(Catalog.open(url, catalog_only.parent / "secrets", now=lambda: NOW - timedelta(days=200))) as made:
        with made._engine.begin() as connection:
            connection.execute(update(schema.usage_tracking).values(since=NOW - timedelta(hours=1)))
        made.create_keystore("main", PREFIX)
        made.issue_credential("main", (ID, SECRET))
        for key in (KEY, OTHER_KEY):
            made.register_key("main", key, hsm="main", label=key.value)
        yield made


def use(
    catalog: Catalog,
    *kinds: str,
    arn: str = ARN,
    ago: timedelta = timedelta(),
    requests: int = 1,
    generation: int = 1,
) -> None:
    """A request of each kind, or an encrypt and a decrypt."""
    at = NOW - ago
    day = (at.date() - date(1970, 1, 1)).days
    for kind in kinds or ("encrypt", "decrypt"):
        place = ("main", KEY.value, generation, arn, kind, day)
        catalog.record_usage([Used(*place, f"{ROLE}/i-1", S3, requests, at.timestamp(), at.timestamp())])


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
    use(catalog, "refusal", ago=timedelta(days=80))
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


def test_doctor_names_a_key_of_several_kms_keys(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    use(catalog)
    use(catalog, arn=OTHER_ARN)
    found = run("doctor", "--json", "--config", catalog_only).json["findings"]
    (finding,) = [one for one in found if one["code"] == "key-several-kms-keys"]
    assert (finding["severity"], finding["subject"]) == ("warning", f"key main/{KEY.value}")
    assert f"{ARN}, {OTHER_ARN}" in finding["what"]


# ---- generations that do not encrypt any more


@pytest.fixture
def rotated(catalog: Catalog) -> Catalog:
    """The first key has a second generation, which encrypts."""
    with catalog.change() as transaction:
        rotation.plan_generation(transaction, "main", KEY.value, hsm="main", label="key-1.g2")
        (new,) = [row.generation_id for row in transaction.keys("main") if row.label == "key-1.g2"]
        rotation.make_ready(transaction, new, Proof(cka_id=None, canary=b"canary", token_serial=""))
        rotation.activate(transaction, new)
    return catalog


def generation(run: Run, catalog_only: Path, command: str, *more: str) -> Result:
    return run("key", "generation", command, "main", KEY.value, "1", *more, "--yes", "--config", catalog_only)


def test_the_plan_of_a_suspension_has_the_evidence(run: Run, catalog_only: Path, rotated: Catalog) -> None:
    use(rotated, ago=timedelta(days=20), requests=5)
    use(rotated, arn=OTHER_ARN, ago=timedelta(days=80))
    said = generation(run, catalog_only, "suspend").ok().err
    assert "last decrypt 20 days ago, last refusal never" in said
    assert "asked to decrypt in the last 7, 30 and 90 days: 0, 5, 6 times" in said
    assert f"asked for by {ARN}" in said
    assert "recorded since 2026-11-25 11:00 UTC; what nobody has read since is not seen" in said


def test_a_suspension_is_a_stop_and_happens_also_where_use_cannot_be_read(
    run: Run, catalog_only: Path, rotated: Catalog
) -> None:
    with rotated._writing() as connection:
        connection.execute(text("DROP TABLE key_usage"))
    done = generation(run, catalog_only, "suspend").ok()
    assert "Use is not known:" in done.err
    assert [row.state for row in rotated.keys("main") if row.label == "key-1"] == [GenerationState.SUSPENDED]


@pytest.mark.parametrize("kind", ["decrypt", "refusal"])
def test_a_generation_that_is_still_asked_for_is_destroyed_only_despite_its_use(
    run: Run, catalog_only: Path, rotated: Catalog, kind: str
) -> None:
    generation(run, catalog_only, "suspend").ok()
    use(rotated, kind, ago=timedelta(days=29))
    refused = generation(run, catalog_only, "destroy")
    assert (refused.code, "was asked for 29 days ago, within the last 30 days" in refused.err) == (
        ExitCode.CONFLICT,
        True,
    )
    assert "last decrypt" in generation(run, catalog_only, "destroy", "--despite-use").ok().err


def test_a_generation_that_nobody_has_asked_for_in_30_days_is_destroyed(
    run: Run, catalog_only: Path, rotated: Catalog
) -> None:
    use(rotated, "decrypt", ago=timedelta(days=31))
    generation(run, catalog_only, "suspend").ok()
    generation(run, catalog_only, "destroy").ok()


def test_an_unused_generation_of_a_used_key_is_listed(run: Run, catalog_only: Path, rotated: Catalog) -> None:
    use(rotated, ago=timedelta(days=100))
    use(rotated, generation=2)
    found = run("key", "usage", "--unused", "90d", "--json", "--config", catalog_only).ok().json["unused"]
    assert ("generation", f"{KEY.value} generation 1") in [(one["kind"], one["name"]) for one in found]
    assert ("key", KEY.value) not in [(one["kind"], one["name"]) for one in found]


def test_what_holds_on_an_older_generation_is_brought_over_by_commands(
    run: Run, catalog_only: Path, rotated: Catalog
) -> None:
    use(rotated, requests=1_500)
    rotated.reserve({1: 4_096})
    command = ("key", "usage", "main", KEY.value, "--reencrypt", "--config", catalog_only)
    done = run(*command).ok()
    first, arn, seen, *commands = done.out.splitlines()
    assert first == "generation 1, retired: at most 4,096 ReEncrypt calls"
    assert (arn, seen) == (f"  {ARN}", "    1,500 encrypts and 1,500 decrypts were seen")
    assert commands[0].startswith("    aws kms re-encrypt --region eu-central-1 ")
    assert commands[-1].startswith("    aws s3 cp s3://BUCKET/OBJECT ")
    assert "ReEncrypt does not reach" in done.err
    (advice,) = run(*command, "--json").ok().json
    assert (advice["generation"], advice["at_most"]) == (1, 4_096)
