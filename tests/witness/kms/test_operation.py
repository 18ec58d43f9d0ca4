"""Running it: quota, metrics, health checks, lasting state, the command line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.waiting import PATIENCE
from tests.witness.kms.clients import (
    LocalKms,
    connected_store,
    create_store,
    describe_store,
    error_of,
    external_key,
    settle,
)
from tests.witness.kms.xks_proxy import HOST, XksProxy

from holdfast.witness.kms.proxy_client import TIME_LIMIT
from holdfast.witness.kms.rate import TokenBucket
from holdfast.witness.kms.settings import Settings
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import HealthStatus

Start = Callable[..., LocalKms]


def metric(local_kms: LocalKms, name: str, **labels: str) -> float:
    """The value of the one sample of this name that has these labels."""
    with urlopen(f"{local_kms.url}/metrics", timeout=PATIENCE) as response:  # noqa: S310 (loopback)
        text = response.read().decode()
    found = [
        line
        for line in text.splitlines()
        if re.match(rf"{name}\{{", line) and all(f'{key}="{value}"' in line for key, value in labels.items())
    ]
    assert len(found) == 1, f"{name} {labels}: {found or text}"
    return float(found[0].rpartition(" ")[2])


def until(holds: Callable[[], object]) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"


def test_a_bucket_lets_its_rate_through() -> None:
    bucket = TokenBucket.full(3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.34), bucket.take(0.34)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_the_defaults_are_kmss(settings: Settings) -> None:
    """Spec, "GetHealthStatus": 1,800 requests/s. On loopback unless told otherwise."""
    default = Settings(settings.credentials)
    assert default.requests_per_second == 1800
    assert ip_address(default.listen.host).is_loopback
    assert TIME_LIMIT == 0.25


def test_the_request_quota_of_a_store_is_enforced(start: Start, proxy: XksProxy) -> None:
    """A refused request never reaches the proxy, and other keys are not touched."""
    local_kms = start(requests_per_second=1)
    kms = local_kms.client()
    ordinary, store_id = kms.create_key()["KeyMetadata"]["Arn"], connected_store(kms)
    key = external_key(kms, store_id)
    refusals = []
    for _ in range(5):
        try:
            kms.encrypt(KeyId=key, Plaintext=b"x")
        except kms.exceptions.ClientError as error:
            refusals.append(error.response["Error"]["Code"])
    assert set(refusals) == {"ThrottlingException"}
    assert len(proxy.plaintexts) + len(refusals) == 5
    kms.encrypt(KeyId=ordinary, Plaintext=b"x")
    throttled = metric(local_kms, "ExternalKeyStoreThrottle_total", CustomKeyStoreId=store_id, KmsOperation="Encrypt")
    assert throttled == len(refusals)


def test_latency_and_errors_are_counted_under_cloudwatchs_names(
    local_kms: LocalKms, kms: Any, proxy: XksProxy
) -> None:
    store_id = connected_store(kms)
    key = external_key(kms, store_id)
    kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    call = {"CustomKeyStoreId": store_id, "KmsOperation": "GenerateDataKey", "XksOperation": "Encrypt"}
    assert metric(local_kms, "XksProxyLatency_count", KeySpec="AES_256", **call) == 1
    proxy.fail(ErrorName.THROTTLING)
    error_of(kms.generate_data_key, KeyId=key, KeySpec="AES_256")
    proxy.fail(ErrorName.ACCESS_DENIED)
    error_of(kms.generate_data_key, KeyId=key, KeySpec="AES_256")
    kinds = [("Retryable", "ThrottlingException"), ("Non-retryable", "AccessDeniedException")]
    for kind, name in kinds:
        assert metric(local_kms, "XksProxyErrors_total", ErrorType=kind, ExceptionName=name, **call) == 1


def test_health_certificate_and_credential_are_measured(local_kms: LocalKms, kms: Any, proxy: XksProxy) -> None:
    proxy.health = [HealthStatus.ACTIVE, HealthStatus.DEGRADED, HealthStatus.ACTIVE]
    store_id = connected_store(kms)
    states = {
        state.value: metric(
            local_kms,
            "XksExternalKeyManagerStates",
            CustomKeyStoreId=store_id,
            XksExternalKeyManagerState=state.value,
        )
        for state in HealthStatus
    }
    assert states == {"ACTIVE": 2, "DEGRADED": 1, "UNAVAILABLE": 0}
    days = metric(local_kms, "XksProxyCertificateDaysToExpire", CustomKeyStoreId=store_id, CertificateName=HOST)
    assert 29 < days < 30
    assert metric(local_kms, "XksProxyCredentialAge", CustomKeyStoreId=store_id) < 0.01


@pytest.mark.parametrize("end", ["disconnected", "never created"])
def test_nothing_is_said_any_more_of_a_proxy_that_kms_does_not_ask(
    local_kms: LocalKms, kms: Any, proxy: XksProxy, end: str
) -> None:
    if end == "disconnected":
        store_id = connected_store(kms)
        kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
        settle(kms, store_id)
    else:
        proxy.health = [HealthStatus.UNAVAILABLE]
        error_of(create_store, kms=kms)
    with urlopen(f"{local_kms.url}/metrics", timeout=PATIENCE) as response:  # noqa: S310 (loopback)
        text = response.read().decode()
    for name in ("XksProxyCertificateDaysToExpire", "XksProxyCredentialAge", "XksExternalKeyManagerStates"):
        assert f"{name}{{" not in text


def test_a_connected_store_is_checked_again_and_again(start: Start, proxy: XksProxy) -> None:
    kms = start(health_interval=0.05).client()
    connected_store(kms)
    until(lambda: [m.kms_operation for _, m in proxy.requests].count("KmsHealthCheck") >= 2)


def test_a_failing_health_check_does_not_disconnect(start: Start, proxy: XksProxy) -> None:
    """AWS KMS publishes it as a metric; the store stays CONNECTED."""
    local_kms = start(health_interval=0.05)
    kms = local_kms.client()
    store_id = connected_store(kms)
    proxy.fail(ErrorName.INTERNAL)
    until(lambda: b'XksOperation="GetHealthStatus"' in _errors(local_kms))
    assert describe_store(kms, store_id)["ConnectionState"] == "CONNECTED"


def _errors(local_kms: LocalKms) -> bytes:
    with urlopen(f"{local_kms.url}/metrics", timeout=PATIENCE) as response:  # noqa: S310 (loopback)
        lines: list[bytes] = response.read().splitlines()
    return b"\n".join(line for line in lines if line.startswith(b"XksProxyErrors_total"))


def test_state_lasts_in_a_data_directory(start: Start, proxy: XksProxy, tmp_path: Path) -> None:
    del proxy
    before = start(data=tmp_path / "data").client()
    key = external_key(before, connected_store(before))
    blob = before.encrypt(KeyId=key, Plaintext=b"lasting")["CiphertextBlob"]
    after = start(data=tmp_path / "data").client()
    assert after.decrypt(CiphertextBlob=blob)["Plaintext"] == b"lasting"


def test_state_in_memory_is_gone(start: Start, proxy: XksProxy) -> None:
    del proxy
    create_store(start().client())
    assert start().client().describe_custom_key_stores()["CustomKeyStores"] == []


def test_a_connection_attempt_is_taken_up_after_a_restart(start: Start, proxy: XksProxy, tmp_path: Path) -> None:
    del proxy
    before = start(data=tmp_path / "data", connection_delay=3600).client()
    store_id = create_store(before)
    before.connect_custom_key_store(CustomKeyStoreId=store_id)
    after = start(data=tmp_path / "data").client()
    assert settle(after, store_id)["ConnectionState"] == "CONNECTED"


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`holdfast kms` as a process, told to end at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "kms", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


def told(process: subprocess.Popen[str], last: str) -> str:
    """Standard error up to the line with `last`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if last in line:
            break
    return "".join(lines)


@pytest.mark.programs
def test_the_command_says_what_it_is_and_how_to_use_it(tmp_path: Path) -> None:
    with command("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")) as process:
        text = told(process, "/metrics")
    assert "DEVELOPMENT AND TESTS" in text
    assert re.search(r"AWS_ENDPOINT_URL_KMS=http://127\.0\.0\.1:[1-9][0-9]+", text)
    assert "warning" not in text
    credentials = tmp_path / "data" / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert "aws_secret_access_key" in credentials.read_text()


@pytest.mark.programs
def test_without_a_data_directory_nothing_is_left_behind() -> None:
    with command("--listen", "127.0.0.1:0") as process:
        named = re.search("AWS_SHARED_CREDENTIALS_FILE=(.*)", told(process, "/metrics"))
        assert named is not None
        directory = Path(named[1]).parent
        assert directory.is_dir()
    assert process.returncode == 0
    assert not directory.exists()


@pytest.mark.programs
def test_the_command_warns_when_others_can_reach_it() -> None:
    with command("--listen", "0.0.0.0:0") as process:
        assert "others can reach it, over plain HTTP" in told(process, "/metrics")


@pytest.mark.programs
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "nowhere"], "is not HOST:PORT"),
        (["--ca", "/nowhere.pem"], "cannot be read: No such file or directory"),
        (["--route", "xks.example.com"], "is not NAME=HOST:PORT"),
        (["--credentials", "/dev/null"], "cannot use the credentials file /dev/null"),
        (["--account", "me"], "is not an AWS account"),
        (["--vpc-service", "svc=xks.example.com@127.0.0.1:8443,me"], "is not an AWS account"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "holdfast", "kms", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode not in {0, 1}
    assert words in result.stderr
    assert "hint: " in result.stderr
