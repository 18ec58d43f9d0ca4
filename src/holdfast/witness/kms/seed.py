"""A file of key stores and keys that a local KMS begins with: `--seed FILE`, TOML or JSON.

A record whose id (key stores: or name) is there already is left as it is, so that the same file can be given at every
start with `--data`. What cannot be changed in AWS must be the same in file and state.
"""

import json
import re
import secrets
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from holdfast.reading import read_file
from holdfast.witness.kms.keys import KEY_MATERIAL, default_policy
from holdfast.witness.kms.records import CONNECTING, DISCONNECTED, PUBLIC, VPC, Alias, Key, KeyStore, Tag
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms.state import Record, State
from holdfast.xks.encoding import decode_base64
from holdfast.xks.errors import XksError
from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

_SUFFIX = "/kms/xks/v1"
_ALIAS = re.compile(r"alias/(?!aws/)[a-zA-Z0-9:/_-]{1,250}")


class SeedError(Exception):
    """The file cannot be used. The message says where in it and why."""


class KeyStoreSeed(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An external key store. Its credential is in `credential_file` (JSON, as for the AWS CLI) or in two fields."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    endpoint: Annotated[str, msgspec.Meta(pattern=r"^https://[A-Za-z0-9.-]+$")]
    path: str
    id: Annotated[str, msgspec.Meta(pattern=r"^cks-[a-z0-9]{17}$")] | None = None
    credential_file: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    vpc_service: str | None = None
    vpc_service_owner: str | None = None
    connected: bool = True


class KeySeed(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A KMS key. `material` is KMS's own, 32 bytes in Base64. `key_store` is a name; an external key has it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    material: str | None = None
    description: str = ""
    enabled: bool = True
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    key_store: str | None = None
    xks_key_id: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    key_store: tuple[KeyStoreSeed, ...] = ()
    key: tuple[KeySeed, ...] = ()


def plant(path: Path, settings: Settings, state: State, now: datetime) -> int:
    """Writes what the state lacks of the file; how many records. Raises SeedError, before anything is written."""
    seeds = _read(path)
    records: list[Record] = []
    stores = {store.name: store for store in state.select(KeyStore)}
    for i, store_seed in enumerate(seeds.key_store, 1):
        if store_seed.name not in stores:
            store = _store(store_seed, f"key_store {i} ({store_seed.name})", path, settings, now.timestamp())
            records.append(store)
    stores |= {record.name: record for record in records if isinstance(record, KeyStore)}
    for seed in seeds.key:
        records += _key(seed, stores, settings, state, now.timestamp())
    there: list[Record] = [*state.select(KeyStore), *state.select(Key), *state.select(Alias)]
    _require_distinct([*there, *records])
    for record in records:
        state.put(record)
    return len(records)


def _read(path: Path) -> _File:
    try:
        text = read_file(path, pipe=True).decode("utf-8-sig")
        document: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)  # noqa: TID251 (a file of the user's own, not of a peer)
        return msgspec.convert(document, _File)
    except OSError as error:
        raise SeedError(f"{path}: {error.strerror}") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise SeedError(f"{path}: {error}") from None


def _store(seed: KeyStoreSeed, where: str, path: Path, settings: Settings, now: float) -> KeyStore:
    access_key_id, secret = _credential(seed, where, path)
    try:
        AccessKeyId.parse(access_key_id)
        SecretAccessKey.parse(secret)
        if not seed.path.endswith(_SUFFIX):
            raise SeedError(f"{where}: path must end with {_SUFFIX}")
        UriPathPrefix.parse(seed.path.removesuffix(_SUFFIX))
    except XksError as error:
        raise SeedError(f"{where}: {error.message}") from None
    return KeyStore(
        id=seed.id or f"cks-{secrets.token_hex(9)[:17]}",
        name=seed.name,
        created=now,
        connectivity=PUBLIC if seed.vpc_service is None else VPC,
        uri_endpoint=seed.endpoint,
        uri_path=seed.path,
        access_key_id=access_key_id,
        secret_access_key=secret,
        credential_since=now,
        vpc_service=seed.vpc_service,
        vpc_service_owner=seed.vpc_service_owner or (settings.account if seed.vpc_service else None),
        # The server takes up connecting when it starts.
        connection_state=CONNECTING if seed.connected else DISCONNECTED,
    )


def _credential(seed: KeyStoreSeed, where: str, path: Path) -> tuple[str, str]:
    if seed.credential_file is None:
        if seed.access_key_id is None or seed.secret_access_key is None:
            raise SeedError(f"{where}: give credential_file, or access_key_id and secret_access_key")
        return seed.access_key_id, seed.secret_access_key
    file = path.parent / seed.credential_file
    try:
        document = json.loads(read_file(file).decode("utf-8-sig"))  # noqa: TID251 (a file of the user's own, not of a peer)
        document = document.get("XksProxyAuthenticationCredential", document)
        return str(document["AccessKeyId"]), str(document["RawSecretAccessKey"])
    except OSError as error:
        raise SeedError(f"{where}: {file}: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise SeedError(f"{where}: {file} is not JSON with AccessKeyId and RawSecretAccessKey") from None


def _key(
    seed: KeySeed, stores: dict[str, KeyStore], settings: Settings, state: State, now: float
) -> list[Key | Alias | Tag]:
    where = f"key {seed.id}"
    material = _material(seed, where)
    store_id = _external(seed, stores, where)
    there = state.find(Key, id=seed.id)
    if there is not None:
        if (there.key_store_id, there.xks_key_id) != (store_id, seed.xks_key_id):
            raise SeedError(f"{where}: the stored key is another external key, or none")
        if seed.material is not None and there.material != material:
            raise SeedError(f"{where}: the stored key has other key material")
        return []
    for alias in seed.aliases:
        if not _ALIAS.fullmatch(alias):
            raise SeedError(f"{where}: {alias} is not an alias name: it begins with alias/, and not with alias/aws/")
    return [
        Key(
            id=seed.id,
            created=now,
            description=seed.description,
            policy=default_policy(settings),
            material=material,
            enabled=seed.enabled,
            key_store_id=store_id,
            xks_key_id=seed.xks_key_id,
        ),
        *(Alias(alias, seed.id, now, now) for alias in seed.aliases),
        *(Tag(seed.id, name, value) for name, value in seed.tags.items()),
    ]


def _material(seed: KeySeed, where: str) -> bytes:
    if seed.material is None:
        return secrets.token_bytes(KEY_MATERIAL)
    try:
        material = decode_base64(seed.material, "material")
    except XksError:
        material = b""
    if len(material) != KEY_MATERIAL:
        raise SeedError(f"{where}: material is not {KEY_MATERIAL} bytes in Base64")
    return material


def _external(seed: KeySeed, stores: dict[str, KeyStore], where: str) -> str | None:
    if seed.key_store is None and seed.xks_key_id is None:
        return None
    if seed.key_store is None or seed.xks_key_id is None:
        raise SeedError(f"{where}: an external key has both key_store and xks_key_id")
    if seed.key_store not in stores:
        raise SeedError(f"{where}: there is no key store {seed.key_store}")
    try:
        ExternalKeyId.parse(seed.xks_key_id)
    except XksError as error:
        raise SeedError(f"{where}: {error.message}") from None
    return stores[seed.key_store].id


def _require_distinct(records: list[Record]) -> None:
    """Raises SeedError if two records, of the state or of the file, claim the same."""
    taken: set[tuple[str, str]] = set()
    for record in records:
        match record:
            case KeyStore():
                claims = [
                    ("key store", record.name),
                    ("key store", record.id),
                    ("endpoint and path", record.uri_endpoint + record.uri_path),
                ]
            case Key():
                claims = [("key", record.id)]
                if record.xks_key_id is not None:
                    claims.append(("xks_key_id", f"{record.xks_key_id} of {record.key_store_id}"))
            case Alias():
                claims = [("alias", record.name)]
            case _:
                continue
        for claim in claims:
            if claim in taken:
                raise SeedError(f"{claim[0]} {claim[1]} would be there twice")
            taken.add(claim)
