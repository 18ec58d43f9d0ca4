"""`holdfast check` as its user runs it."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.waiting import PATIENCE
from tests.witness.check.certificates import Authority
from tests.witness.check.honest_proxy import KEY, SECRET, HonestProxy, serve, write_configuration
from tests.witness.check.wrong_proxies import AadIgnored

pytestmark = pytest.mark.server
_MAIN = "import sys; from holdfast.cli.main import main; sys.exit(main())"


def run(
    port: int, authority: Authority, configuration: Path, *more: str, local: bool = True
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _MAIN, "check", f"https://localhost:{port}", "--ca", str(authority.path)]
    command += ["--proxy-config", str(configuration), *more, *(["--local"] if local else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_an_honest_proxy_is_fit(authority: Authority, certificate: Path, configuration: Path, tmp_path: Path) -> None:
    page, suite = tmp_path / "report.html", tmp_path / "report.xml"
    with serve(HonestProxy(), certificate) as port:
        done = run(port, authority, configuration, "--key", KEY, "--html", str(page), "--junit", str(suite))
    assert done.returncode == 0, done.stderr
    assert "Fit for local use only (--local). AWS KMS would refuse this endpoint" in done.stdout.replace("\n", " ")
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())
    assert SECRET not in done.stdout + done.stderr + page.read_text() + suite.read_text()


def test_without_local_a_rehearsal_is_not_fit_for_kms(
    authority: Authority, certificate: Path, configuration: Path
) -> None:
    with serve(HonestProxy(), certificate) as port:
        done = run(port, authority, configuration, "--quiet", "--only", "REACH", local=False)
    assert done.returncode == 11
    lines = done.stdout.splitlines()
    assert lines[0] == "fail REACH-03 The port is not 443"
    assert any(line.startswith("  do     Let a load balancer") for line in lines)
    assert "REACH-02" not in done.stdout


def test_a_wrong_proxy_is_not_fit(authority: Authority, certificate: Path, configuration: Path) -> None:
    with serve(AadIgnored(), certificate) as port:
        done = run(port, authority, configuration, "--key", KEY, "--json", "--only", "DEC-03")
    assert done.returncode == 11, done.stderr
    assert [c["id"] for c in msgspec.json.decode(done.stdout)["checks"] if c["verdict"] == "fail"] == ["DEC-03"]


def test_a_wrong_credential_is_not_judged(authority: Authority, certificate: Path, tmp_path: Path) -> None:
    wrong = write_configuration(tmp_path / "wrong.json", RawSecretAccessKey="w" * 43)
    with serve(HonestProxy(), certificate) as port:
        done = run(port, authority, wrong, "--key", KEY)
    assert done.returncode == 1
    assert "AuthenticationFailedException" in done.stdout


def test_nobody_listening_is_not_judged(authority: Authority, certificate: Path, configuration: Path) -> None:
    with serve(HonestProxy(), certificate) as port:
        pass
    done = run(port, authority, configuration)
    assert done.returncode == 1
    assert "REACH-02" in done.stdout


def test_a_missing_configuration_file_is_named(authority: Authority, tmp_path: Path) -> None:
    done = run(1, authority, tmp_path / "absent.json")
    assert done.returncode == 4
    assert "absent.json cannot be read" in done.stderr
    assert "hint:" in done.stderr


@pytest.mark.parametrize("option", ["--ca", "--client-certificate"])
@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_file_that_is_no_pem_is_named(
    authority: Authority, configuration: Path, tmp_path: Path, option: str, content: str | None
) -> None:
    path = tmp_path / "some.pem"
    if content is not None:
        path.write_text(content)
    done = run(1, authority, configuration, option, str(path))
    assert done.returncode == 4
    assert f"{option} {path} cannot be used" in done.stderr
    assert "hint:" in done.stderr


def test_a_load_needs_a_key(authority: Authority, configuration: Path) -> None:
    done = run(1, authority, configuration, "--load", "10")
    assert done.returncode == 4
    assert "--key" in done.stderr


def test_another_host_is_not_loaded_unasked(configuration: Path) -> None:
    command = [sys.executable, "-c", _MAIN, "check", "https://192.0.2.1", "--proxy-config", str(configuration)]
    done = subprocess.run(
        [*command, "--key", KEY, "--load", "10"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 4
    assert "--yes-load-this-host" in done.stderr
