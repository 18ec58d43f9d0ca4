"""`holdfast init --directory`: complete, repeatable, and unharmed by an interruption at any step. On real SoftHSM."""

import os
import stat
from collections.abc import Iterator
from contextlib import chdir, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.config.load import load
from holdfast.control.catalogs import open_catalog
from holdfast.control.errors import Conflict, Invalid, Prerequisite
from holdfast.control.keys import hsm_settings
from holdfast.control.kms_connection import public_endpoint
from holdfast.hsm.pkcs11.initialise import initialise_token
from holdfast.hsm.pkcs11.inspect import FoundKey, Inspector
from holdfast.setup import softhsm
from holdfast.setup.init import Setup, Wanted
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

WANTED = Wanted("demo", UriPathPrefix("/demo"), ExternalKeyId("demo-key"), 8443)
STEPS = 10
_SOFTHSMS = ("token.object", "generation")


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """Loading SoftHSM sets SOFTHSM2_CONF in this process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def setup(directory: Path) -> Setup:
    return Setup(directory, WANTED, lambda: datetime.now(UTC))


def keys(directory: Path) -> list[FoundKey]:
    """Every secret key of the token, by the configuration that init wrote."""
    with Inspector(hsm_settings(load(directory / "holdfast.toml"), None)) as inspector:
        return sorted(inspector.find_keys(), key=lambda key: key.label)


def content(directory: Path) -> dict[str, bytes]:
    """Every file but the bookkeeping of SQLite and SoftHSM, which change when they are opened."""
    files = (path for path in directory.rglob("*") if path.is_file())
    ours = (path for path in files if "catalog.db" not in path.name and path.name not in _SOFTHSMS)
    return {str(path.relative_to(directory)): path.read_bytes() for path in ours}


def assert_complete(directory: Path) -> None:
    found = keys(directory)
    assert [key.label for key in found] == ["demo-key", "holdfast-health"]
    assert all(key.attributes.key_spec == "AES_256" for key in found)
    with closing(open_catalog(load(directory / "holdfast.toml"), now=lambda: datetime.now(UTC))) as catalog:
        (keystore,) = catalog.snapshot().keystores.values()
    assert (keystore.name, keystore.prefix.value, list(keystore.keys)) == ("demo", "/demo", ["demo-key"])
    assert len(keystore.credentials) == 1


def test_everything_is_made(tmp_path: Path) -> None:
    lines = list(setup(tmp_path / "state").run())
    assert len(lines) == STEPS
    assert_complete(tmp_path / "state")


def test_keys_are_confined_to_the_token(tmp_path: Path) -> None:
    list(setup(tmp_path).run())
    for key in keys(tmp_path):
        attributes = key.attributes.attributes
        assert attributes["CKA_SENSITIVE"]
        assert not attributes["CKA_EXTRACTABLE"]
        assert not attributes["CKA_WRAP"]
        assert key.attributes.key_usage == ("ENCRYPT", "DECRYPT")


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    list(setup(tmp_path).run())
    before, held = content(tmp_path), keys(tmp_path)
    lines = list(setup(tmp_path).run())
    assert content(tmp_path) == before
    assert keys(tmp_path) == held
    assert not [line for line in lines if "made" in line or "issued" in line]


def test_two_at_once_make_one_setup(tmp_path: Path) -> None:
    first = setup(tmp_path).run()
    next(first)
    with pytest.raises(Conflict, match="another `holdfast init` works in"):
        list(setup(tmp_path).run())
    list(first)
    assert_complete(tmp_path)


@pytest.mark.parametrize("done", range(STEPS))
def test_interrupted_run_is_completed_by_the_next(tmp_path: Path, done: int) -> None:
    """What the first run made is kept: PINs, token, keys, credential."""
    steps = setup(tmp_path).run()
    for _ in range(done):
        next(steps)
    del steps
    before = content(tmp_path)
    list(setup(tmp_path).run())
    assert_complete(tmp_path)
    after = content(tmp_path)
    assert {name: text for name, text in after.items() if name in before} == before


def test_interruption_while_the_token_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = initialise_token

    def interrupted(*arguments: object, **options: object) -> None:
        real(*arguments, **options)  # type: ignore[arg-type]  # passed through
        raise KeyboardInterrupt

    monkeypatch.setattr(softhsm, "initialise_token", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(setup(tmp_path).run())
    assert list((tmp_path / "softhsm" / "tokens").iterdir()) == []
    monkeypatch.setattr(softhsm, "initialise_token", real)
    list(setup(tmp_path).run())
    assert_complete(tmp_path)


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        list(setup(tmp_path / "state").run())
    finally:
        os.umask(before)
    state = tmp_path / "state"
    public = {"holdfast.toml", "softhsm/softhsm2.conf", "tls/ca.pem", "tls/server.pem"}
    modes = {str(path.relative_to(state)): stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*")}
    # SoftHSM makes its own files, and leaves their protection to the directory they are in.
    ours = {name: mode for name, mode in modes.items() if not name.startswith("softhsm/tokens/")}
    assert {name for name, mode in ours.items() if mode & 0o077} == public
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_no_secret_is_said(tmp_path: Path) -> None:
    said = "\n".join(setup(tmp_path).run()) + setup(tmp_path).next_steps(Path("/usr/bin"))
    secrets = [(tmp_path / "softhsm" / name).read_text().strip() for name in ("pin", "so-pin")]
    secrets += [path.read_text().strip() for path in (tmp_path / "secrets").iterdir()]
    assert len(secrets) == 3
    assert not [secret for secret in secrets if secret in said]


def test_missing_softhsm_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softhsm, "_PLACES", ("/nowhere",))
    with pytest.raises(Prerequisite) as caught:
        list(setup(tmp_path / "state").run())
    assert "apt-get install softhsm2" in caught.value.hint
    assert not (tmp_path / "state").exists()


def test_edited_configuration_is_kept(tmp_path: Path) -> None:
    list(setup(tmp_path).run())
    path = tmp_path / "holdfast.toml"
    path.write_text(path.read_text().replace("8443", "9443"))
    list(setup(tmp_path).run())
    assert "https://localhost:9443/" in setup(tmp_path).next_steps(Path("/usr/bin"))


def test_the_next_steps_are_few_and_fit_a_terminal(tmp_path: Path) -> None:
    whole = setup(Path("state"))
    with chdir(tmp_path):
        list(whole.run())
        lines = whole.next_steps(Path("/usr/bin")).replace(str(tmp_path), "/home/somebody/holdfast").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 26


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("https://xks.example.com", "https://xks.example.com"),
        ("https://xks.example.com:8443", "https://xks.example.com"),
        ("http://xks.example.com", "https://xks.example.com"),
        ("https://localhost:8443", "https://YOUR-PROXY.example.com"),
        ("https://127.0.0.1:8443", "https://YOUR-PROXY.example.com"),
        ("https://[::1]:8443", "https://YOUR-PROXY.example.com"),
    ],
)
def test_the_endpoint_that_kms_is_told(endpoint: str, told: str) -> None:
    assert public_endpoint(endpoint) == told


@pytest.mark.parametrize("left", [None, b"", b"\n"])
def test_a_token_whose_pin_is_lost_is_told_and_nothing_is_made(tmp_path: Path, left: bytes | None) -> None:
    """A new PIN beside an old token would only be refused by it."""
    list(setup(tmp_path).run())
    pin = tmp_path / "softhsm" / "pin"
    pin.unlink()
    if left is not None:
        pin.write_bytes(left)
    before = content(tmp_path)
    with pytest.raises(Invalid, match="no longer holds") as refused:
        list(setup(tmp_path).run())
    assert "Restore that file" in refused.value.hint
    assert content(tmp_path) == before


def test_a_credential_whose_secret_is_lost_is_replaced(tmp_path: Path) -> None:
    list(setup(tmp_path).run())
    (lost,) = (tmp_path / "secrets").iterdir()
    lost.unlink()
    assert "Credential: issued" in list(setup(tmp_path).run())
    assert_complete(tmp_path)
