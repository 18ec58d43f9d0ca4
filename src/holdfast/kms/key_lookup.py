"""From a `KeyId` in a request to the key that it names."""

import re

from holdfast.kms.call import Service
from holdfast.kms.errors import KmsException
from holdfast.kms.records import CONNECTED, Alias, Key, KeyStore

_ARN = re.compile(r"arn:([a-z0-9-]+):kms:([a-z0-9-]+):([0-9]{12}):((?:key|alias)/.+)")
_KEY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32}")


def key_of(named: str, service: Service) -> Key:
    """The key of a key id or key ARN. Raises KmsException(NotFoundException or InvalidArnException)."""
    resource = _resource(named, service)
    if not resource.startswith("key/"):
        raise KmsException("NotFoundException", f"Invalid keyId {named}")
    return _of_key_id(resource.removeprefix("key/"), service)


def key_or_alias(named: str, service: Service) -> Key:
    """The key of a key id, key ARN, alias name or alias ARN. Raises KmsException as `key_of`."""
    resource = _resource(named, service)
    if resource.startswith("key/"):
        return _of_key_id(resource.removeprefix("key/"), service)
    alias = service.state.find(Alias, name=resource)
    if alias is None:
        raise KmsException("NotFoundException", f"Alias {service.arn(resource)} is not found.")
    return _of_key_id(alias.key_id, service)


def key_state(key: Key, service: Service) -> str:
    """`KeyState`: PendingDeletion, Unavailable (its key store is not CONNECTED), Disabled or Enabled."""
    if key.deletion_date is not None:
        return "PendingDeletion"
    if key.key_store_id is not None and store_of(key, service).connection_state != CONNECTED:
        return "Unavailable"
    return "Enabled" if key.enabled else "Disabled"


def store_of(key: Key, service: Service) -> KeyStore:
    """The external key store of a key that has one."""
    store = service.state.find(KeyStore, id=key.key_store_id)
    if store is None:
        # The schema's foreign key holds this.
        raise LookupError(key.key_store_id)
    return store


def _resource(named: str, service: Service) -> str:
    if not named.startswith("arn:"):
        if named.startswith("alias/"):
            return named
        if not _KEY_ID.fullmatch(named):
            raise KmsException("NotFoundException", f"Invalid keyId '{named}'")
        return f"key/{named}"
    match = _ARN.fullmatch(named)
    if match is None or match[1] != service.settings.partition.name:
        raise KmsException("InvalidArnException", f"Invalid arn {named}")
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
