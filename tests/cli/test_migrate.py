"""`holdfast migrate aws-sample` on real SoftHSM: the plan first, then a setup that doctor finds sound."""

import shutil
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.admin.test_aws_sample import ACCESS_KEY_ID, PIN, SECRET, settings
from tests.cli.conftest import Run
from tests.server.token import LIBRARY
from tools.docs.shapes import SHAPES

from holdfast.admin.catalogs import open_catalog
from holdfast.catalog.snapshot import Takeover
from holdfast.cli.exit_codes import ExitCode
from holdfast.config.load import load

_MAKE = """
import sys
from holdfast.ekm.pkcs11.initialise import initialise_token
from holdfast.ekm.pkcs11.inspect import Inspector
from holdfast.ekm.settings import HsmSettings, TokenSelector
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
        timeout=30,
        env={"SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    )
    return directory


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
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes", "--json").ok()
    assert tuple(done.json) == SHAPES["migrate aws-sample"][1]
    configuration = load(tmp_path / "new" / "holdfast.toml")
    with closing(open_catalog(configuration, now=lambda: datetime.now(UTC))) as catalog:
        (keystore,) = catalog.snapshot().keystores.values()
    assert (keystore.prefix.value, keystore.region) == ("/example/prefix", "eu-central-1")
    assert {name: secret.reveal().decode() for name, secret in keystore.credentials.items()} == {
        ACCESS_KEY_ID: SECRET
    }
    assert {name: key.takeover for name, key in keystore.keys.items()} == {"alpha": Takeover(b"v0.0.1")}


def test_doctor_finds_the_setup_sound(run: Run, file: Path, tmp_path: Path) -> None:
    """But for plain HTTP, which that proxy spoke too."""
    run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()
    findings = run("doctor", "--json", "--config", tmp_path / "new" / "holdfast.toml").json["findings"]
    bad = {finding["code"] for finding in findings if finding["severity"] in ("warning", "error")}
    assert bad <= {"tls-off", "clock-unsynchronised"}
    assert "round-trip" in {finding["code"] for finding in findings}


def test_secrets_are_private_and_unsaid(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("migrate", "aws-sample", file, "--directory", tmp_path / "new", "--yes").ok()
    assert PIN not in done.out + done.err
    assert SECRET not in done.out + done.err
    pin = tmp_path / "new" / "pin"
    assert (pin.read_text().strip(), stat.S_IMODE(pin.stat().st_mode)) == (PIN, 0o600)


def test_run_again_completes_and_changes_nothing(run: Run, file: Path, tmp_path: Path) -> None:
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
