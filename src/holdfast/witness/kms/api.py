"""From a signed HTTP request to an operation and back: AWS JSON 1.1."""

import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.witness.kms import aliases, cryptographic, grants, key_stores, keys, other_keys, rotation, tags
from holdfast.witness.kms.call import Call, Output, Service
from holdfast.witness.kms.callers import Caller, authenticate
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.gateway import XksNote
from holdfast.witness.kms.service_model import encode_output, operation_of, parse_input

MAX_BODY = 1024 * 1024
"""Bytes of a request body: more than any input that the service model allows."""

OPERATIONS: dict[str, Callable[[Call, Service], Awaitable[Output]]] = {
    "CancelKeyDeletion": keys.cancel_deletion,
    "ConnectCustomKeyStore": key_stores.connect,
    "CreateAlias": aliases.create,
    "CreateCustomKeyStore": key_stores.create,
    "CreateGrant": grants.create,
    "CreateKey": keys.create,
    "Decapsulate": other_keys.of_another_usage,
    "Decrypt": cryptographic.decrypt,
    "DeleteAlias": aliases.delete,
    "DeleteCustomKeyStore": key_stores.delete,
    "DeleteImportedKeyMaterial": other_keys.of_imported_keys,
    "DeriveSharedSecret": other_keys.of_another_usage,
    "DescribeCustomKeyStores": key_stores.describe,
    "DescribeKey": keys.describe,
    "DisableKey": keys.disable,
    "DisableKeyRotation": rotation.disable,
    "DisconnectCustomKeyStore": key_stores.disconnect,
    "EnableKey": keys.enable,
    "EnableKeyRotation": rotation.enable,
    "Encapsulate": other_keys.of_another_usage,
    "Encrypt": cryptographic.encrypt,
    "GenerateDataKey": cryptographic.generate_data_key,
    "GenerateDataKeyPair": cryptographic.generate_data_key_pair,
    "GenerateDataKeyPairWithoutPlaintext": cryptographic.generate_data_key_pair_without_plaintext,
    "GenerateDataKeyWithoutPlaintext": cryptographic.generate_data_key_without_plaintext,
    "GenerateMac": other_keys.of_another_usage,
    "GenerateRandom": cryptographic.generate_random,
    "GetKeyLastUsage": keys.last_usage,
    "GetKeyPolicy": keys.get_policy,
    "GetKeyRotationStatus": rotation.status,
    "GetParametersForImport": other_keys.of_imported_keys,
    "GetPublicKey": other_keys.of_asymmetric_keys,
    "ImportKeyMaterial": other_keys.of_imported_keys,
    "ListAliases": aliases.list_aliases,
    "ListGrants": grants.list_grants,
    "ListKeyPolicies": keys.list_policies,
    "ListKeyRotations": rotation.list_rotations,
    "ListKeys": keys.list_keys,
    "ListResourceTags": tags.list_tags,
    "ListRetirableGrants": grants.list_retirable,
    "PutKeyPolicy": keys.put_policy,
    "ReEncrypt": cryptographic.re_encrypt,
    "ReplicateKey": other_keys.of_multi_region_keys,
    "RetireGrant": grants.retire,
    "RevokeGrant": grants.revoke,
    "RotateKeyOnDemand": rotation.on_demand,
    "ScheduleKeyDeletion": keys.schedule_deletion,
    "Sign": other_keys.of_another_usage,
    "TagResource": tags.tag,
    "UntagResource": tags.untag,
    "UpdateAlias": aliases.update,
    "UpdateCustomKeyStore": key_stores.update,
    "UpdateKeyDescription": keys.update_description,
    "UpdatePrimaryRegion": other_keys.of_multi_region_keys,
    "Verify": other_keys.of_another_usage,
    "VerifyMac": other_keys.of_another_usage,
}
"""Every operation of the service model."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class KmsEvent:
    """One request as CloudTrail would show it, with the proxy calls that it led to. Holds no plaintext."""

    request_id: str
    operation: str | None = None
    principal_arn: str | None = None
    key_id: str | None = None
    error: str | None = None
    message: str | None = None
    xks: list[XksNote] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """Status and body. The request id goes into a header."""

    status: int
    body: bytes
    event: KmsEvent


class Api:
    """KMS's API over one service."""

    def __init__(self, service: Service, callers: Mapping[str, Caller]) -> None:
        self._service = service
        self._callers = callers

    async def handle(self, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """The response to a POST; never raises. `headers` have lower-case names."""
        event = KmsEvent(str(uuid.uuid4()))
        try:
            return Response(200, await self._answer(path, headers, body, event), event)
        except KmsException as error:
            refused = error
        except Exception:  # noqa: BLE001 (the last line of defence: a bug must answer KMSInternalException)
            _log.exception("request %s failed inside the local KMS", event.request_id)
            refused = KmsException("KMSInternalException", "The local KMS failed; its log says why.", status=500)
        event.error, event.message = refused.name, refused.message
        return Response(
            refused.status, json.dumps({"__type": refused.name, "message": refused.message}).encode(), event
        )

    async def _answer(self, path: str, headers: Mapping[str, str], body: bytes, event: KmsEvent) -> bytes:
        if path != "/":
            raise KmsException("UnknownOperationException", f"AWS KMS has no path {path}: use /", status=404)
        if len(body) > MAX_BODY:
            raise KmsException("RequestEntityTooLargeException", f"A body has at most {MAX_BODY} bytes.", status=413)
        now, region = self._service.now(), self._service.settings.region
        caller = authenticate(headers, body, callers=self._callers, region=region, now=now)
        event.principal_arn = caller.principal_arn
        model = operation_of(headers.get("x-amz-target", ""))
        event.operation = model.name
        values = parse_input(model, body)
        event.key_id = _named_key(values)
        self._service.state.expire(now.timestamp())
        call = Call.of(model.name, caller, values, event.request_id)
        event.xks = call.trail.notes
        return encode_output(model, await OPERATIONS[model.name](call, self._service))


def _named_key(values: Mapping[str, Any]) -> str | None:
    for name in ("KeyId", "DestinationKeyId", "TargetKeyId"):
        if name in values:
            return str(values[name])
    return None
