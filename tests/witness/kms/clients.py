"""What the tests do with a local KMS through boto3."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3  # type: ignore[import-untyped]  # boto3 has no annotations
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.waiting import PATIENCE
from tests.witness.kms.xks_proxy import ACCESS_KEY_ID, HOST, SECRET_ACCESS_KEY

from holdfast.witness.kms.callers import load_callers
from holdfast.witness.kms.settings import Settings


@dataclass
class LocalKms:
    """A running local KMS: where it is, and what it said."""

    settings: Settings
    url: str
    lines: list[str] = field(default_factory=list)

    def client(self, profile: str = "alice") -> Any:
        """A boto3 client that does not retry."""
        caller = load_callers(self.settings)[f"AKIA{profile.upper()}"]
        return boto3.client(
            "kms",
            endpoint_url=self.url,
            region_name=self.settings.region,
            aws_access_key_id=caller.access_key_id,
            aws_secret_access_key=caller.secret_access_key.reveal().decode(),
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )


def create_store(kms: Any, **changes: Any) -> str:
    """A new external key store; its id. A parameter that is None is left out."""
    parameters = {
        "CustomKeyStoreName": "store",
        "CustomKeyStoreType": "EXTERNAL_KEY_STORE",
        "XksProxyUriEndpoint": f"https://{HOST}",
        "XksProxyUriPath": "/one/kms/xks/v1",
        "XksProxyAuthenticationCredential": {
            "AccessKeyId": ACCESS_KEY_ID,
            "RawSecretAccessKey": SECRET_ACCESS_KEY,
        },
        "XksProxyConnectivity": "PUBLIC_ENDPOINT",
        **changes,
    }
    store_id: str = kms.create_custom_key_store(
        **{name: value for name, value in parameters.items() if value is not None}
    )["CustomKeyStoreId"]
    return store_id


def describe_store(kms: Any, store_id: str) -> dict[str, Any]:
    entry: dict[str, Any] = kms.describe_custom_key_stores(CustomKeyStoreId=store_id)["CustomKeyStores"][0]
    return entry


def settle(kms: Any, store_id: str) -> dict[str, Any]:
    """The store's entry once it neither connects nor disconnects any more."""
    deadline = time.monotonic() + PATIENCE
    while (entry := describe_store(kms, store_id))["ConnectionState"] in {"CONNECTING", "DISCONNECTING"}:
        assert time.monotonic() < deadline, "the connection state did not settle"
    return entry


def connected_store(kms: Any, **changes: Any) -> str:
    """A new external key store, connected; its id."""
    store_id = create_store(kms, **changes)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "CONNECTED"
    return store_id


def external_key(kms: Any, store_id: str, xks_key_id: str = "key-0") -> str:
    """A new KMS key in an external key store; its ARN."""
    arn: str = kms.create_key(Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store_id, XksKeyId=xks_key_id)[
        "KeyMetadata"
    ]["Arn"]
    return arn


def error_of(call: Callable[..., object], **parameters: Any) -> tuple[str, str]:
    """The exception's name and message that a boto3 call ends with."""
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    error = raised.value.response["Error"]
    return error["Code"], error.get("Message", "")
