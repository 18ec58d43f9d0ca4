"""A catalog that moves to another database."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.postgresql import POSTGRESQL
from tests.store.samples import ID, KEY, OTHER_ID, OTHER_KEY, OTHER_SECRET, PREFIX, SECRET

from holdfast.keys.model import Takeover
from holdfast.store.descriptions import describe
from holdfast.store.drills import OPENED, AttestedRow, Found, attest, attested, drilled, drills, record_drill
from holdfast.store.errors import AlreadyExists, InUse, Refused
from holdfast.store.governance import operators, rules_of
from holdfast.store.transfer import Export
from holdfast.xks.types import KeyStatus, UriPathPrefix


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """A catalog with something in every column."""
    catalog.create_keystore("main", PREFIX, region="eu-central-1")
    catalog.create_keystore("empty", UriPathPrefix(""))
    catalog.issue_credential("main", (ID, SECRET))
    catalog.issue_credential("main", (OTHER_ID, OTHER_SECRET))
    catalog.record_use({ID.value: datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)})
    catalog.retire_credential(OTHER_ID)
    catalog.register_key("main", KEY, hsm="hsm", label="label-1", cka_id=b"\x00\xff", takeover=Takeover(b"meta"))
    catalog.register_key("main", OTHER_KEY, hsm="hsm", label="label-2")
    catalog.reserve_encryptions(1, 123_456)
    catalog.record_canary(1, b"\x01canary")
    catalog.record_token_serial(1, "0042")
    catalog.stop_generation(2, "an unsafe IV")
    catalog.set_key_status("main", OTHER_KEY, KeyStatus.DISABLED)
    catalog.set_blocked("empty", blocked=True)
    with catalog.change() as transaction:
        values = {"owner": "Payments", "originator_days": 365, "recipient_days": 730}
        describe(transaction, "main", KEY.value, values=values, tags={"stage": "prod", "data": "cards"})
        record_drill(transaction, "standby", "7", [Found(1, OPENED), Found(2, "not found", "no key 'label-2'")])
        attest(transaction, [AttestedRow(2, "hsm", "", "label-2", None, None, "")])
    return catalog


@pytest.fixture(params=["sqlite", POSTGRESQL])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog to import into."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/target.db"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgresql").lent())
        yield stack.enter_context(closing(Catalog.create_or_upgrade(url, tmp_path / "secrets", now=now)))


def test_what_is_exported_is_imported(filled: Catalog, target: Catalog) -> None:
    """Also from SQLite to PostgreSQL and back: rows, counts, stops; and the version goes up."""
    export = Export.parse(filled.export().to_json())
    version = target.import_(export)
    before, after = filled.snapshot(), target.snapshot()
    assert version == after.version > before.version
    assert after.keystores == before.keystores
    assert target.keystores() == filled.keystores()
    assert target.credentials(None) == filled.credentials(None)
    assert target.keys(None) == filled.keys(None)
    assert target.keys(None)[0].description.tags == {"data": "cards", "stage": "prod"}
    assert target.encryption_totals() == {1: 123_456, 2: 0}
    with filled.reading() as old, target.reading() as new:
        for found in (drills, drilled, attested):
            assert found(new) == found(old) != []
    target.create_keystore("new", UriPathPrefix("/new"))  # the database goes on counting its rows


def test_a_catalog_that_moves_keeps_its_operators_and_rules(filled: Catalog, target: Catalog) -> None:
    """Else everybody could do everything after the move."""
    with filled.change() as transaction:
        transaction.enrol_operator("alice", ["approver"], "ssh-ed25519 AAAA")
        transaction.set_rules("approval", "expires_after_h = 1")
    target.import_(Export.parse(filled.export().to_json()))
    with filled.reading() as before, target.reading() as after:
        assert operators(after) == operators(before) != []
        assert rules_of(after, "approval") == rules_of(before, "approval") == "expires_after_h = 1"


def test_an_export_holds_no_secret(filled: Catalog) -> None:
    document = filled.export().to_json()
    assert SECRET.reveal() not in document
    assert f"file:{ID}".encode() in document


def test_an_export_names_the_proxies_that_still_run(filled: Catalog) -> None:
    assert filled.export().running == 0
    filled.heartbeat("proxy")
    assert filled.export().running == 1


def test_only_an_empty_catalog_takes_an_import(filled: Catalog, target: Catalog) -> None:
    export = filled.export()
    with pytest.raises(InUse, match="into an empty one only"):
        filled.import_(export)
    target.import_(export)
    with pytest.raises(InUse):
        target.import_(export)


def test_an_import_is_whole_or_nothing(filled: Catalog, target: Catalog) -> None:
    document = msgspec.json.decode(filled.export().to_json())
    document["keystores"][1]["prefix"] = document["keystores"][0]["prefix"]
    with pytest.raises(AlreadyExists):
        target.import_(Export.parse(msgspec.json.encode(document)))
    document["keystores"][1]["prefix"] = "no prefix"
    with pytest.raises(Refused, match=r"the keystore empty .* is not served"):
        target.import_(Export.parse(msgspec.json.encode(document)))
    assert (target.keystores(), target.keys(None), target.version()) == ([], [], 1)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"format": "other", "version": 1}', b"\xff", b'{"format": 1}']
)
def test_another_document_is_refused(document: bytes) -> None:
    with pytest.raises(Refused):
        Export.parse(document)


def test_an_export_of_another_format_is_refused(filled: Catalog) -> None:
    document = msgspec.json.decode(filled.export().to_json()) | {"format": "holdfast-catalog-2"}
    with pytest.raises(Refused, match="the export has the format 'holdfast-catalog-2'"):
        Export.parse(msgspec.json.encode(document))


def test_a_catalog_with_a_wrong_row_is_not_exported(filled: Catalog) -> None:
    with filled._writing() as connection:
        connection.execute(text("DELETE FROM key_generations WHERE id = 1"))
    with pytest.raises(Refused, match="a row is wrong, so nothing was done: the key key-1"):
        filled.export()
