import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.store import children
from tests.store.conftest import now
from tests.store.samples import ID, OTHER_ID, OTHER_SECRET, PREFIX, SECRET

from holdfast.secrets.errors import ReferenceRefused, SecretMissing
from holdfast.secrets.reference import SecretReference, Source
from holdfast.store.credentials import CredentialChanges
from holdfast.store.errors import CatalogError, NotFound, Unavailable
from holdfast.store.repairs import deviations
from holdfast.store.view import View
from holdfast.xks.types import AccessKeyId


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def main(catalog: Catalog) -> Catalog:
    """A catalog with an empty keystore."""
    catalog.create_keystore("main", PREFIX)
    return catalog


def live(catalog: Catalog) -> dict[str, object]:
    return dict(catalog.snapshot().keystores["/main"].credentials)


def test_a_secret_lies_in_its_own_file_for_its_owner_alone(main: Catalog, secrets: Path) -> None:
    main.issue_credential("main", (ID, SECRET))
    file = secrets / ID.value
    assert file.read_bytes() == SECRET.reveal() + b"\n"
    assert (stat.S_IMODE(secrets.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)


def test_the_database_never_holds_a_secret(main: Catalog, tmp_path: Path, url: str) -> None:
    main.issue_credential("main", (ID, SECRET))
    if url.startswith("sqlite"):
        files = list(tmp_path.glob("catalog.db*"))
        assert not any(SECRET.reveal() in file.read_bytes() for file in files)
    assert [row.secret_ref for row in main.credentials("main")] == [f"file:{ID}"]


def test_a_retired_credential_loses_its_file_and_keeps_its_row(main: Catalog, secrets: Path) -> None:
    main.issue_credential("main", (ID, SECRET))
    main.issue_credential("main", (OTHER_ID, OTHER_SECRET))
    main.retire_credential(ID)
    assert [path.name for path in secrets.iterdir()] == [OTHER_ID.value]
    assert live(main) == {OTHER_ID.value: OTHER_SECRET}
    assert {row.access_key_id: row.retired_at is None for row in main.credentials(None)} == {
        ID.value: False,
        OTHER_ID.value: True,
    }
    with pytest.raises(NotFound, match="no live credential"):
        main.retire_credential(ID)


def test_a_row_that_fails_removes_its_file(main: Catalog, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        assert (secrets / ID.value).exists()  # file first
        raise Unavailable("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialChanges, "_insert", fail)
        with pytest.raises(Unavailable):
            main.issue_credential("main", (ID, SECRET))
    assert list(secrets.iterdir()) == []
    assert main.credentials(None) == []


def test_a_commit_of_unknown_outcome_keeps_the_file(
    main: Catalog, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without a row opens nothing; a row without a file is a dead credential."""

    def fail(*_: object) -> None:
        raise Unavailable("the connection broke")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialChanges, "_insert", fail)
        patched.setattr(main, "_reading", fail)
        with pytest.raises(Unavailable):
            main.issue_credential("main", (ID, SECRET))
    assert (secrets / ID.value).exists()
    main.issue_credential("main", (ID, OTHER_SECRET))  # and it is in nobody's way
    assert live(main) == {ID.value: OTHER_SECRET}


@pytest.mark.programs
def test_a_crash_between_file_and_row_leaves_no_credential(main: Catalog, url: str, secrets: Path) -> None:
    assert children.run(children.die_between_file_and_row, url, secrets, times=1) == [-signal.SIGKILL]
    assert (secrets / ID.value).exists()
    assert (main.credentials(None), live(main)) == ([], {})
    main.issue_credential("main", (ID, OTHER_SECRET))
    assert live(main) == {ID.value: OTHER_SECRET}


def test_a_secrets_directory_that_cannot_be_written_changes_nothing(main: Catalog, secrets: Path) -> None:
    secrets.write_text("in the way")
    with pytest.raises(SecretMissing, match="cannot be written"):
        main.issue_credential("main", (ID, SECRET))
    assert main.credentials(None) == []


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(
    main: Catalog, secrets: Path, tmp_path: Path
) -> None:
    secrets.mkdir()
    (secrets / ID.value).symlink_to(tmp_path / "target")
    main.issue_credential("main", (ID, SECRET))
    assert not (tmp_path / "target").exists()
    assert not (secrets / ID.value).is_symlink()


def test_secrets_are_read_from_the_environment_and_from_systemd(
    main: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main.reference_credential("main", ID, "env:HOLDFAST_SECRET_TEST")
    main.reference_credential("main", OTHER_ID, "credential:holdfast-secret-kms")
    assert live(main) == {}
    assert len(main.snapshot().unreadable) == 2
    monkeypatch.setenv("HOLDFAST_SECRET_TEST", SECRET.reveal().decode())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "holdfast-secret-kms").write_bytes(OTHER_SECRET.reveal() + b"\n")
    assert live(main) == {ID.value: SECRET, OTHER_ID.value: OTHER_SECRET}


def test_a_missing_secret_leaves_the_other_credentials_serving(main: Catalog, url: str, secrets: Path) -> None:
    main.issue_credential("main", (ID, SECRET))
    main.issue_credential("main", (OTHER_ID, OTHER_SECRET))
    (secrets / ID.value).unlink()
    fresh = Catalog.open(url, secrets, now=now)
    snapshot = fresh.snapshot()
    fresh.close()
    assert list(snapshot.keystores["/main"].credentials) == [OTHER_ID.value]
    (words,) = snapshot.unreadable
    assert f"the credential {ID} is refused until its secret can be read" in words
    assert f"{secrets / ID.value} cannot be read: No such file or directory" in words


def test_a_secret_is_read_once(main: Catalog, secrets: Path) -> None:
    main.issue_credential("main", (ID, SECRET))
    view = View()
    main.refresh(view)
    (secrets / ID.value).unlink()
    main.refresh(view)
    assert [keystore.credentials for keystore in view.keystores.values()] == [{ID.value: SECRET}]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"s" * 65, b"s" * 42 + b"!", b"s" * 43 + b"\n\n", b"\xff" * 43]
)
def test_a_malformed_secret_is_missing_and_never_shown(main: Catalog, secrets: Path, content: bytes) -> None:
    main.issue_credential("main", (ID, SECRET))
    (secrets / ID.value).write_bytes(content)
    (words,) = main.snapshot().unreadable
    assert live(main) == {}
    assert not content.strip() or content.strip().decode("latin-1") not in words


def test_a_file_too_long_for_a_secret_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 70_000)
    with pytest.raises(SecretMissing, match="more than 65536 bytes"):
        SecretReference(Source.FILE, str(tmp_path / "log")).read()


@pytest.mark.parametrize(
    "reference", ["", "file:", "env:", "env:A B", "credential:../etc/shadow", "credential:a/b", "http://x", "env:A\n"]
)
def test_a_malformed_reference_is_refused(reference: str) -> None:
    with pytest.raises(ReferenceRefused):
        SecretReference.parse(reference)


@pytest.mark.parametrize("reference", ["file:/etc/x", "env:NAME", "credential:holdfast.pin"])
def test_a_reference_is_written_as_it_is_read(reference: str) -> None:
    assert str(SecretReference.parse(reference)) == reference


def test_a_credential_without_systemd_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretMissing, match="LoadCredential=pin:"):
        SecretReference.parse("credential:pin").read()


def test_two_processes_may_not_issue_one_id(
    main: Catalog, open_catalog: Callable[[], Catalog], secrets: Path
) -> None:
    other = open_catalog()
    main.issue_credential("main", (ID, SECRET))
    with pytest.raises(CatalogError, match="is or was in use"):
        other.issue_credential("main", (AccessKeyId(ID.value), OTHER_SECRET))
    assert (secrets / ID.value).read_bytes() == SECRET.reveal() + b"\n"
    assert [path.name for path in secrets.iterdir()] == [ID.value]


def test_a_file_that_cannot_be_removed_is_told_after_the_credential_is_retired(main: Catalog, secrets: Path) -> None:
    main.issue_credential("main", (ID, SECRET))
    (secrets / ID.value).unlink()
    (secrets / ID.value).mkdir()
    with pytest.raises(SecretMissing, match=f"the credential {ID} is retired, but .* cannot be removed: .* by hand"):
        main.retire_credential(ID)
    assert live(main) == {}


def test_a_file_that_was_never_there_is_no_hindrance_to_retiring(main: Catalog) -> None:
    main.reference_credential("main", ID, "env:HOLDFAST_SECRET_TEST")
    main.retire_credential(ID)
    assert live(main) == {}


FOREIGN = ["file:BBBBBBBBBBBBBBBBBBBB", "file:/etc/hostname", "file:../x", "env:PYTHON_SHA256", "credential:other"]


@pytest.mark.parametrize("reference", FOREIGN)
def test_who_writes_the_database_does_not_choose_the_secret(
    main: Catalog, secrets: Path, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these places exists, holds a well-formed secret, and is not this credential's."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("PYTHON_SHA256", "5" * 64)
    main.issue_credential("main", (ID, SECRET))
    main.issue_credential("main", (OTHER_ID, OTHER_SECRET))
    for place in (tmp_path / "other", secrets.parent / "x"):
        place.write_text("p" * 43)
    with main._changing() as connection:
        connection.execute(
            text("UPDATE credentials SET secret_ref = :reference WHERE access_key_id = :id"),
            {"reference": reference, "id": ID.value},
        )
    (words,) = main.snapshot().unexplained
    assert f"secret_ref 'file:{ID}' -> '{reference}'" in words
    assert live(main) == {ID.value: SECRET, OTHER_ID.value: OTHER_SECRET}
    with main.change() as transaction:  # and what a person has accepted is still not a place for this secret
        transaction.accept_entries(deviations(transaction)[0], all_of_them=False)
    (words,) = main.snapshot().bad_rows
    assert words.startswith(f"the credential {ID} is refused: ")
    assert live(main) == {OTHER_ID.value: OTHER_SECRET}


def test_a_reference_that_would_be_refused_is_not_made(main: Catalog) -> None:
    with pytest.raises(ReferenceRefused, match="like env:HOLDFAST_SECRET_PROD, or set `reference_prefix`"):
        main.reference_credential("main", ID, "env:PYTHON_SHA256")
    with pytest.raises(ReferenceRefused, match="like credential:holdfast-secret-prod"):
        main.reference_credential("main", ID, "credential:other")
    assert main.credentials(None) == []
