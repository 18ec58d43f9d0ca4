"""Rotation of the key material of ordinary keys. No key rotates by itself here; RotateKeyOnDemand does it at once."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

from holdfast.witness.kms import aws_managed
from holdfast.witness.kms.call import Call, Output, Service, page
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.key_lookup import key_of, require_state, wrong_origin
from holdfast.witness.kms.records import Key, Rotation, date

MAX_ON_DEMAND = 25
"""Rotations on demand of one key (service model, RotateKeyOnDemand)."""

_DEFAULT_PERIOD = 365


async def enable(call: Call, service: Service) -> Output:
    """EnableKeyRotation; changes the period of a key that has it."""
    key = _rotating_key(call, service)
    period = call.input.get("RotationPeriodInDays", _DEFAULT_PERIOD)
    service.state.put(replace(key, rotation_period=period, rotation_since=service.timestamp()))
    return {}


async def disable(call: Call, service: Service) -> Output:
    """DisableKeyRotation."""
    service.state.put(replace(_rotating_key(call, service), rotation_period=None, rotation_since=None))
    return {}


async def status(call: Call, service: Service) -> Output:
    """GetKeyRotationStatus."""
    key = _rotating_key(call, service)
    output: dict[str, object] = {"KeyId": service.arn(f"key/{key.id}"), "KeyRotationEnabled": False}
    if key.aws_service is not None:
        return output | {"KeyRotationEnabled": True}
    if key.rotation_period is None or key.rotation_since is None:
        return output
    period = timedelta(days=key.rotation_period).total_seconds()
    passed = (service.timestamp() - key.rotation_since) // period
    return output | {
        "KeyRotationEnabled": True,
        "RotationPeriodInDays": key.rotation_period,
        "NextRotationDate": date(key.rotation_since + (passed + 1) * period),
    }


async def on_demand(call: Call, service: Service) -> Output:
    """RotateKeyOnDemand: new key material for what is encrypted from now on; the old decrypts what it encrypted."""
    key = _rotating_key(call, service)
    earlier = service.state.select(Rotation, key_id=key.id)
    if len(earlier) >= MAX_ON_DEMAND:
        raise KmsException(
            "LimitExceededException",
            f"The on-demand rotations limit has been reached for the given keyId. {MAX_ON_DEMAND} are allowed.",
        )
    service.state.put(Rotation(key.id, len(earlier) + 1, service.timestamp(), key.material))
    service.state.put(replace(key, material=service.random(len(key.material))))
    return {"KeyId": service.arn(f"key/{key.id}")}


async def list_rotations(call: Call, service: Service) -> Output:
    """ListKeyRotations: those on demand; with ALL_KEY_MATERIAL also the first key material."""
    key = _rotating_key(call, service)
    rotations = service.state.select(Rotation, key_id=key.id)
    materials = [*(rotation.replaced for rotation in rotations), key.material]
    entries = [
        {
            "KeyId": service.arn(f"key/{key.id}"),
            "KeyMaterialId": material_id(material),
            "KeyMaterialState": "CURRENT" if material == key.material else "NON_CURRENT",
            "RotationDate": date(rotations[i - 1].date) if i else None,
            "RotationType": "ON_DEMAND" if i else None,
        }
        for i, material in enumerate(materials)
    ]
    if call.input.get("IncludeKeyMaterial") != "ALL_KEY_MATERIAL":
        entries = entries[1:]
    by_id = {str(entry["KeyMaterialId"]): entry for entry in entries}
    ids, paging = page(call, list(by_id))
    return {"Rotations": [by_id[each] for each in ids], **paging}


def material_id(material: bytes) -> str:
    """`KeyMaterialId`: names key material without revealing it."""
    return sha256(b"key material id" + material).hexdigest()


def _rotating_key(call: Call, service: Service) -> Key:
    key = key_of(call, service, checks_state=False)
    if key.key_store_id is not None:
        raise wrong_origin(key, service)
    aws_managed.require_access(key, call, service)
    require_state(key, call, service)
    return key
