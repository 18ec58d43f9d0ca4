"""CreateKey, DescribeKey, ListKeys, enabling, disabling and deleting, descriptions and key policies."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from holdfast.witness.kms import aws_managed, policies, tags
from holdfast.witness.kms.call import Call, Output, Service, page
from holdfast.witness.kms.errors import KmsException, of_failure, unsupported, validation_error
from holdfast.witness.kms.key_lookup import key_of, key_or_alias, key_state, origin_of
from holdfast.witness.kms.key_stores import of_id as store_of_id
from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms.records import CONNECTED, Key, KeyStore, date
from holdfast.witness.kms.rotation import material_id
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms_errors import Failure, OperationGroup
from holdfast.xks.types import KeyStatus

KEY_MATERIAL = 32
"""Bytes of KMS's own key material."""
_DEFAULT_WINDOW, _SHORTEST_WINDOW, _LONGEST_WINDOW = 30, 7, 30
_POLICY_NAME = "default"


async def create(call: Call, service: Service) -> Output:
    """CreateKey: SYMMETRIC_DEFAULT, with Origin AWS_KMS or EXTERNAL_KEY_STORE."""
    given = call.input
    _require_symmetric(given)
    policy = given.get("Policy", default_policy(service.settings))
    policies.require(policy, call, service)
    new_tags = tags.parse(given.get("Tags", []))
    store = await _external(call, service)
    key = Key(
        id=str(uuid.uuid4()),
        created=service.timestamp(),
        description=given.get("Description", ""),
        policy=policy,
        material=service.random(KEY_MATERIAL),
        key_store_id=None if store is None else store.id,
        xks_key_id=None if store is None else given["XksKeyId"],
    )
    service.state.put(key)
    tags.put(key, new_tags, service)
    return {"KeyMetadata": _metadata(key, service)}


async def describe(call: Call, service: Service) -> Output:
    """DescribeKey. It makes the AWS managed key of a predefined alias (service model)."""
    aws_managed.create_if_predefined(call.input["KeyId"], service)
    return {"KeyMetadata": _metadata(key_or_alias(call, service), service)}


async def list_keys(call: Call, service: Service) -> Output:
    """ListKeys."""
    ids, paging = page(call, [key.id for key in service.state.select(Key)])
    return {"Keys": [{"KeyId": key_id, "KeyArn": service.arn(f"key/{key_id}")} for key_id in ids], **paging}


async def enable(call: Call, service: Service) -> Output:
    """EnableKey."""
    service.state.put(replace(key_of(call, service), enabled=True))
    return {}


async def disable(call: Call, service: Service) -> Output:
    """DisableKey."""
    service.state.put(replace(key_of(call, service), enabled=False))
    return {}


async def schedule_deletion(call: Call, service: Service) -> Output:
    """ScheduleKeyDeletion: 7 to 30 days."""
    key = key_of(call, service)
    days = call.input.get("PendingWindowInDays", _DEFAULT_WINDOW)
    if not _SHORTEST_WINDOW <= days <= _LONGEST_WINDOW:
        raise validation_error(f"PendingWindowInDays is {_SHORTEST_WINDOW} to {_LONGEST_WINDOW} days.")
    deletion_date = (service.now() + timedelta(days=days)).timestamp()
    service.state.put(replace(key, deletion_date=deletion_date))
    return {
        "KeyId": service.arn(f"key/{key.id}"),
        "DeletionDate": date(deletion_date),
        "KeyState": "PendingDeletion",
        "PendingWindowInDays": days,
    }


async def cancel_deletion(call: Call, service: Service) -> Output:
    """CancelKeyDeletion: the key comes back disabled."""
    key = key_of(call, service)
    service.state.put(replace(key, deletion_date=None, enabled=False))
    return {"KeyId": service.arn(f"key/{key.id}")}


async def last_usage(call: Call, service: Service) -> Output:
    """GetKeyLastUsage, since this process began."""
    key = key_of(call, service)
    use = service.last_uses.get(key.id)
    return {
        "KeyId": service.arn(f"key/{key.id}"),
        "KeyLastUsage": {}
        if use is None
        else {"Operation": use.operation, "Timestamp": date(use.at), "KmsRequestId": use.request_id},
        "TrackingStartDate": date(max(service.started, key.created)),
        "KeyCreationDate": date(key.created),
    }


async def update_description(call: Call, service: Service) -> Output:
    """UpdateKeyDescription."""
    service.state.put(replace(key_of(call, service), description=call.input["Description"]))
    return {}


async def put_policy(call: Call, service: Service) -> Output:
    """PutKeyPolicy: stored, and given back; this KMS does not evaluate it."""
    _require_policy_name(call)
    policies.require(call.input["Policy"], call, service)
    service.state.put(replace(key_of(call, service), policy=call.input["Policy"]))
    return {}


async def get_policy(call: Call, service: Service) -> Output:
    """GetKeyPolicy."""
    _require_policy_name(call)
    return {"Policy": key_of(call, service).policy, "PolicyName": _POLICY_NAME}


async def list_policies(call: Call, service: Service) -> Output:
    """ListKeyPolicies: there is one, `default`."""
    key_of(call, service)
    names, paging = page(call, [_POLICY_NAME])
    return {"PolicyNames": names, **paging}


def _require_symmetric(given: Mapping[str, Any]) -> None:
    for name in ("KeySpec", "CustomerMasterKeySpec"):
        if given.get(name, "SYMMETRIC_DEFAULT") == "SYMMETRIC_DEFAULT":
            continue
        if "KeyUsage" not in given:
            raise validation_error(
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."
            )
        raise unsupported(f"{name} {given[name]}")
    if given.get("KeyUsage", "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT":
        raise validation_error(f"KeyUsage {given['KeyUsage']} is not compatible with KeySpec SYMMETRIC_DEFAULT.")
    if given.get("MultiRegion"):
        raise unsupported("MultiRegion")


async def _external(call: Call, service: Service) -> KeyStore | None:
    """The external key store of the new key, after all of KMS's checks; None for an ordinary key."""
    given = call.input
    match given.get("Origin", "AWS_KMS"):
        case "EXTERNAL_KEY_STORE":
            for name in ("CustomKeyStoreId", "XksKeyId"):
                if name not in given:
                    raise validation_error(f"{name} is required when Origin is EXTERNAL_KEY_STORE.")
            store = store_of_id(call, service)
            await _require_external_key(store, call, service)
            return store
        case "AWS_KMS":
            for name in ("CustomKeyStoreId", "XksKeyId"):
                if name in given:
                    raise validation_error(f"{name} is valid only when Origin is EXTERNAL_KEY_STORE.")
            return None
        case origin:
            raise unsupported(f"Origin {origin}")


async def _require_external_key(store: KeyStore, call: Call, service: Service) -> None:
    xks_key_id = call.input["XksKeyId"]
    if store.connection_state != CONNECTED:
        raise of_failure(ProxyFailure(Failure.NOT_CONNECTED, store.id), OperationGroup.CREATE_KEY)
    _require_unused(store, xks_key_id, service)
    try:
        found = await service.gateway.key_metadata(store, xks_key_id, call.trail)
    except ProxyFailure as failure:
        raise of_failure(failure, OperationGroup.CREATE_KEY) from None
    # Spec, "GetKeyMetadata", KMS Considerations; the sentences are the KMS developer guide's.
    if found.key_spec != "AES_256":
        raise _invalid_external_key("key spec", "be AES_256", "key spec", found.key_spec)
    if not {"ENCRYPT", "DECRYPT"}.issubset(found.key_usage):
        raise _invalid_external_key("key usage", "include ENCRYPT and DECRYPT", "key use", found.key_usage)
    if found.key_status is not KeyStatus.ENABLED:
        raise _invalid_external_key("status", "be ENABLED", "status", found.key_status.value)
    # Another CreateKey may have taken it while this one waited for the proxy.
    _require_unused(store, xks_key_id, service)


def _require_unused(store: KeyStore, xks_key_id: str, service: Service) -> None:
    if service.state.find(Key, key_store_id=store.id, xks_key_id=xks_key_id) is not None:
        raise KmsException(
            "XksKeyAlreadyInUseException",
            f"A KMS key in {store.id} is associated with the external key {xks_key_id} already.",
        )


def _invalid_external_key(property_: str, must: str, found: str, value: object) -> KmsException:
    shown = ", ".join(value) if isinstance(value, list) else value
    return KmsException(
        "XksKeyInvalidConfigurationException",
        f"The {property_} of the external key must {must}. The {found} of specified external key is {shown}.",
    )


def _metadata(key: Key, service: Service) -> Output:
    state = key_state(key, service)
    external = key.key_store_id is not None
    return {
        "AWSAccountId": service.settings.account,
        "KeyId": key.id,
        "Arn": service.arn(f"key/{key.id}"),
        "CreationDate": date(key.created),
        "Enabled": state == "Enabled",
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": state,
        "DeletionDate": date(key.deletion_date),
        "Origin": origin_of(key),
        "CustomKeyStoreId": key.key_store_id,
        "KeyManager": "AWS" if key.aws_service else "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
        "CurrentKeyMaterialId": None if external else material_id(key.material),
        "XksKeyConfiguration": {"Id": key.xks_key_id} if external else None,
    }


def default_policy(settings: Settings) -> str:
    """The policy of a key that is created without one: the account may do everything."""
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{settings.partition.name}:iam::{settings.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]})


def _require_policy_name(call: Call) -> None:
    if call.input.get("PolicyName", _POLICY_NAME) != _POLICY_NAME:
        raise KmsException("NotFoundException", "No such policy exists")
