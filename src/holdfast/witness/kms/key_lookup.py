"""From a `KeyId` in a request to the key that it names, in a state that allows the operation."""

import re

from holdfast.witness.kms import aws_managed, key_states
from holdfast.witness.kms.call import Call, Service
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.records import CONNECTED, Alias, Key, KeyStore
from holdfast.witness.kms.service_model import errors_of

_ARN = re.compile(r"arn:([a-z0-9-]+):kms:([a-z0-9-]+):([0-9]{12}):((?:key|alias)/.+)")
_KEY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32}")


def key_of(call: Call, service: Service, member: str = "KeyId", *, checks_state: bool = True) -> Key:
    """The key of a key id or key ARN. Raises KmsException, also if the key's state refuses the operation."""
    resource = _resource(call, service, member)
    if not resource.startswith("key/"):
        raise KmsException("NotFoundException", f"Invalid keyId {call.input[member]}")
    key = _of_key_id(resource.removeprefix("key/"), service)
    return _allowed(key, call, service) if checks_state else key


def key_or_alias(call: Call, service: Service, member: str = "KeyId") -> Key:
    """The key of a key id, key ARN, alias name or alias ARN. Raises KmsException as `key_of`."""
    resource = _resource(call, service, member)
    if resource.startswith("key/"):
        return _allowed(_of_key_id(resource.removeprefix("key/"), service), call, service)
    alias = service.state.find(Alias, name=resource)
    if alias is None:
        raise KmsException("NotFoundException", f"Alias {service.arn(resource)} is not found.")
    return _allowed(_of_key_id(alias.key_id, service), call, service)


def require_state(key: Key, call: Call, service: Service) -> None:
    """Raises KmsException if the key's state refuses the operation."""
    key_states.require(key_state(key, service), call.operation, service.arn(f"key/{key.id}"))


def key_state(key: Key, service: Service) -> str:
    """`KeyState`: PendingDeletion, Unavailable (its key store is not CONNECTED), Disabled or Enabled."""
    if key.deletion_date is not None:
        return key_states.PENDING_DELETION
    if key.key_store_id is not None and store_of(key, service).connection_state != CONNECTED:
        return key_states.UNAVAILABLE
    return key_states.ENABLED if key.enabled else key_states.DISABLED


def origin_of(key: Key) -> str:
    """`Origin`."""
    return "AWS_KMS" if key.key_store_id is None else "EXTERNAL_KEY_STORE"


def wrong_origin(key: Key, service: Service) -> KmsException:
    """What KMS says of an operation that keys of this origin do not have."""
    arn = service.arn(f"key/{key.id}")
    return KmsException(
        "UnsupportedOperationException", f"{arn} origin is {origin_of(key)} which is not valid for this operation."
    )


def store_of(key: Key, service: Service) -> KeyStore:
    """The external key store of a key that has one."""
    store = service.state.find(KeyStore, id=key.key_store_id)
    if store is None:
        # The schema's foreign key holds this.
        raise LookupError(key.key_store_id)
    return store


def _allowed(key: Key, call: Call, service: Service) -> Key:
    aws_managed.require_access(key, call, service)
    require_state(key, call, service)
    return key


def _resource(call: Call, service: Service, member: str) -> str:
    named = call.input[member]
    if not named.startswith("arn:"):
        if named.startswith("alias/"):
            return str(named)
        if not _KEY_ID.fullmatch(named):
            raise KmsException("NotFoundException", f"Invalid keyId '{named}'")
        return f"key/{named}"
    match = _ARN.fullmatch(named)
    if match is None or match[1] != service.settings.partition.name:
        # Some operations do not list InvalidArnException.
        listed = "InvalidArnException" in errors_of(call.operation)
        raise KmsException("InvalidArnException" if listed else "NotFoundException", f"Invalid arn {named}")
    _, region, account, resource = match.groups()
    if region != service.settings.region:
        raise KmsException("NotFoundException", f"Invalid arn {region}")
    if account != service.settings.account:
        raise KmsException("NotFoundException", f"'{named}' does not exist")
    return resource


def _of_key_id(key_id: str, service: Service) -> Key:
    key = service.state.find(Key, id=key_id)
    if key is None:
        raise KmsException("NotFoundException", f"Key '{service.arn(f'key/{key_id}')}' does not exist")
    return key
