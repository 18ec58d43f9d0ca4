"""`holdfast migrate aws-sample` on real SoftHSM: the plan first, then a setup that doctor finds sound."""

import shutil
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.server.token import LIBRARY
from tests.setup.test_aws_sample import ACCESS_KEY_ID, PIN, SECRET, settings
from tests.shim.control import build, environment
from tests.waiting import PATIENCE
from tools.docs.shapes import SHAPES

from holdfast.cli.exit_codes import ExitCode
from holdfast.config.load import load
from holdfast.control.catalogs import open_catalog
from holdfast.hsm.pkcs11.inspect import TokenDescription
from holdfast.hsm.settings import TokenSelector
from holdfast.keys.model import Takeover
from holdfast.setup.migration import selector_of

_MAKE = """
import sys
from holdfast.hsm.pkcs11.initialise import initialise_token
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.xks.secret import Secret
library, pin = sys.argv[1], Secret(sys.argv[2].encode())
initialise_token(library, {}, label="sample", so_pin=Secret(b"12345678"), pin=pin)
token = TokenSelector(label="sample")
with Inspector(HsmSettings("made", "softhsm2", library, token, health_key="health", pin=pin)) as inspector:
    for label in ("alpha", "holdfast-health"):
        inspector.generate_aes_256(label, b"")
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SoftHSM as that proxy's owner has it: a token with the keys alpha and holdfast-health, but no beta."""
    directory = tmp_path_factory.mktemp("sample")
    (directory / "tokens").mkdir()
    (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
    subprocess.run(
        [sys.executable, "-c", _MAKE, str(LIBRARY), PIN],
        check=True,
        timeout=PATIENCE,
        env={"SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    )
    return directory


@pytest.fixture(scope="module")
def nshield_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim under the name by which a profile is chosen."""
    library = tmp_path_factory.mktemp("nfast") / "libcknfast.so"
    library.symlink_to(build(tmp_path_factory.mktemp("shim")))
    return library


def complete(text: str) -> str:
    """The settings without the key that the token lacks."""
    return text.replace(', "beta"', "")


@pytest.fixture
def file(tmp_path: Path, token: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    del run  # restores the environment
    copy = tmp_path / "token"
    shutil.copytree(token, copy)
    configuration = copy / "softhsm2.conf"
    configuration.write_text(configuration.read_text().replace(str(token), str(copy)))
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    path = tmp_path / "settings.toml"
    module = {"module": f'"{LIBRARY}"', "iv": "false", "zero": "false"}
    path.write_text(settings(server='ciphertext_metadata_b64 = "djAuMC4x"', **module))
    return path


def test_without_confirmation_nothing_is_made(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new")
    assert done.code == ExitCode.UNCONFIRMED
    assert not (tmp_path / "new").exists()
    for said in ("profile softhsm2", "/example/prefix/kms/xks/v1", "NOT taken over: the key beta", "[limits]"):
        assert said in done.err


def test_setup_has_what_that_proxy_had(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes", "--json")
    assert tuple(done.json) == SHAPES["migrate aws-sample"][1]
    assert list(done.json["not_taken_over"]["keys"]) == ["beta"]
    assert done.code == ExitCode.INCOMPLETE
    configuration = load(tmp_path / "new" / "holdfast.toml")
    with closing(open_catalog(configuration, now=lambda: datetime.now(UTC))) as catalog:
        (keystore,) = catalog.snapshot().keystores.values()
    assert (keystore.prefix.value, keystore.region) == ("/example/prefix", "eu-central-1")
    assert {name: secret.reveal().decode() for name, secret in keystore.credentials.items()} == {
        ACCESS_KEY_ID: SECRET
    }
    assert {name: key.takeover for name, key in keystore.keys.items()} == {"alpha": Takeover(b"v0.0.1")}


def test_what_the_keys_have_encrypted_before_is_counted(run: Run, file: Path, tmp_path: Path) -> None:
    options = ("--directory", tmp_path / "new", "--prior-encryptions", "2000000000")
    planned = run("migrate", "aws-sample", file, *options)
    assert "each key is counted as having encrypted 2,000,000,000 times" in planned.err
    run("migrate", "aws-sample", file, *options, "--yes")
    rows = run("key", "list", "--json", "--config", tmp_path / "new" / "holdfast.toml").ok().json
    assert rows
    assert all(row["encryptions_at_most"] > 2_000_000_000 for row in rows)


def test_doctor_finds_the_setup_sound(run: Run, file: Path, tmp_path: Path) -> None:
    """But for plain HTTP, which that proxy spoke too."""
    file.write_text(complete(file.read_text()))
    run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()
    findings = run("doctor", "--json", "--config", tmp_path / "new" / "holdfast.toml").json["findings"]
    bad = {finding["code"] for finding in findings if finding["severity"] in ("warning", "error")}
    assert bad <= {"tls-off", "clock-unsynchronised"}
    assert "round-trip" in {finding["code"] for finding in findings}


def test_secrets_are_private_and_unsaid(run: Run, file: Path, tmp_path: Path) -> None:
    file.write_text(complete(file.read_text()))
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()
    assert PIN not in done.out + done.err
    assert SECRET not in done.out + done.err
    pin = tmp_path / "new" / "pin"
    assert (pin.read_text().strip(), stat.S_IMODE(pin.stat().st_mode)) == (PIN, 0o600)


def test_run_again_completes_and_changes_nothing(run: Run, file: Path, tmp_path: Path) -> None:
    file.write_text(complete(file.read_text()))
    for _ in range(2):
        run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()


def test_health_key_must_exist(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--health-key", "none-such", "--yes")
    assert done.code == ExitCode.HSM
    assert "--health-key" in done.err


def test_health_key_is_not_one_that_kms_uses(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--health-key", "alpha", "--yes")
    assert done.code == ExitCode.CONFIGURATION
    assert "KMS uses" in done.err


# ---- nothing is written before everything was checked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"djAuMC4x"', '"AQAAAAE="'), "Holdfast's own metadata"),
        (('region = "eu-central-1"', 'region = "frankfurt"'), "not an AWS region"),
        (("is_tls_enabled = false", "is_tls_enabled = true"), "tls_cert_pem"),
        (("port = 443", "port = 99999"), "listen"),
    ],
    ids=["metadata", "region", "certificate", "port"],
)
def test_settings_that_cannot_be_taken_over_leave_no_trace(
    run: Run, file: Path, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    file.write_text(file.read_text().replace(*change))
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes")
    assert done.code == ExitCode.CONFIGURATION
    assert said in done.err
    assert not (tmp_path / "new").exists()


def test_another_configuration_in_the_directory_keeps_everything(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "holdfast.toml").write_text("# mine\n")
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes")
    assert done.code == ExitCode.CONFLICT
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["holdfast.toml"]


@pytest.mark.parametrize(
    "command",
    [
        ("keystore", "create", "example-prefix", "--prefix", "/another/prefix"),
        ("keystore", "create", "another", "--prefix", "/example/prefix"),
    ],
    ids=["name", "prefix"],
)
def test_conflict_with_an_existing_catalog_is_found_before_anything_is_written(
    run: Run, file: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    arguments = ("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes")
    file.write_text(complete(file.read_text()))
    run(*arguments).ok()
    (tmp_path / "new" / "catalog.db").unlink()
    run("init", "--config", tmp_path / "new" / "holdfast.toml").ok()
    run(*command, "--config", tmp_path / "new" / "holdfast.toml").ok()
    (tmp_path / "new" / "pin").unlink()
    done = run(*arguments)
    assert done.code == ExitCode.CONFLICT
    assert "already" in done.err
    assert not (tmp_path / "new" / "pin").exists()


def test_state_can_lie_apart_from_the_configuration(run: Run, file: Path, tmp_path: Path) -> None:
    """So that the service cannot write its own configuration."""
    file.write_text(complete(file.read_text()))
    configuration, state = tmp_path / "etc", tmp_path / "var"
    run("migrate", "aws-sample", file, "--directory", configuration, "--state", state, "--yes").ok()
    assert sorted(path.name for path in configuration.iterdir()) == ["holdfast.toml", "pin"]
    assert sorted(path.name for path in state.iterdir() if "catalog.db-" not in path.name) == [
        "catalog.db",
        "secrets",
    ]
    listed = run("key", "list", "--json", "--config", configuration / "holdfast.toml").ok().json
    assert "alpha" in str(listed)


# ---- tokens


def test_placeholder_pin_is_never_tried(run: Run, file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text().replace(PIN, "replaceme"))
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes")
    assert done.code == ExitCode.CONFIGURATION
    assert "user_pin is empty or a placeholder" in done.err


def test_token_that_is_not_initialised_points_at_the_environment(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens without the SOFTHSM2_CONF that the sample's unit sets."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.conf").write_text(f"directories.tokendir = {tmp_path / 'empty'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "empty.conf"))
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes")
    assert done.code == ExitCode.HSM
    for said in ("not initialised", "SOFTHSM2_CONF", "systemctl show"):
        assert said in done.err


@pytest.mark.parametrize(
    ("load_sharing", "selector"), [(True, 'label = "'), (False, 'serial = "')], ids=["load-sharing", "two-modules"]
)
def test_nshield_as_the_example_file_sets_it_up(  # noqa: PLR0913, PLR0917 (fixtures)
    run: Run,
    file: Path,
    tmp_path: Path,
    nshield_library: Path,
    monkeypatch: pytest.MonkeyPatch,
    load_sharing: bool,  # noqa: FBT001
    selector: str,
) -> None:
    """Placeholder PIN, faked login, and without load-sharing two tokens of one label (the shim: emulated)."""
    shim = environment("nshield", token_pin=PIN, fake_login=True, load_sharing=load_sharing)
    for name, value in shim.items():
        monkeypatch.setenv(name, value)
    module = {"module": f'"{nshield_library}"', "pin": '"replaceme"'}
    file.write_text(complete(settings(**module)))
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()
    assert "no PIN" in done.err
    text = (tmp_path / "new" / "holdfast.toml").read_text()
    assert f"token = {{ {selector}" in text
    assert "pin" not in text
    assert "FAKE_ACCELERATOR_LOGIN" not in text
    assert not (tmp_path / "new" / "pin").exists()
    findings = run("doctor", "--json", "--config", tmp_path / "new" / "holdfast.toml").json["findings"]
    assert {"token", "round-trip"} <= {finding["code"] for finding in findings if finding["severity"] == "ok"}


def described(label: str, serial: str, slot: int) -> TokenDescription:
    return TokenDescription(
        slot, label, serial, "", "", "", initialized=True, login_required=False, max_sessions=None
    )


@pytest.mark.parametrize(
    ("others", "selector"),
    [
        ([("other", "2")], TokenSelector(label="hsm")),
        ([("hsm", "2")], TokenSelector(serial="1")),
        ([("hsm", "1")], TokenSelector(slot=0)),
    ],
    ids=["label", "serial", "slot"],
)
def test_token_is_named_by_what_is_unique(others: list[tuple[str, str]], selector: TokenSelector) -> None:
    first = described("hsm", "1", 0)
    assert selector_of(first, [first, *(described(*other, slot) for slot, other in enumerate(others, 1))]) == selector
