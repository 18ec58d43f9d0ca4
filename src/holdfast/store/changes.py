"""What an operator changes: keystores, keys, blocks. Parts of a transaction (`transaction.py`)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from secrets import token_bytes
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, or_, select

from holdfast.keys.model import Takeover
from holdfast.keys.proof import Proof
from holdfast.keys.states import GenerationState
from holdfast.store import schema
from holdfast.store.errors import AlreadyExists, InUse, NotFound, Refused
from holdfast.store.reads import Reading, keystore_id
from holdfast.store.rows import KEYSTORE_NAME, MAX_LABEL
from holdfast.store.use import readable_format
from holdfast.store.writing import Writing
from holdfast.xks.aad import (
    KEY_TAG_BYTES,
    MAX_CIPHERTEXT_METADATA,
    NEWEST_FORMAT,
    is_foreign_metadata,
    is_key_tag,
    key_tag,
)
from holdfast.xks.partition import REGION
from holdfast.xks.types import ExternalKeyId, KeyStatus, UriPathPrefix

_MOST_ENCRYPTIONS = 2**32


def require_keystore_name(name: str) -> None:
    """Raises Refused for an invalid name. Every valid name, prefixed with a slash, is also a valid path prefix."""
    if not KEYSTORE_NAME.fullmatch(name):
        raise Refused(f"{name!r} is not a keystore name: use 1 to 63 of a-z 0-9 -, not beginning with -")


class KeystoreChanges(Writing):
    """Changes to keystores. They raise CatalogError."""

    def create_keystore(self, name: str, prefix: UriPathPrefix, *, region: str | None = None) -> None:
        """A keystore without keys and credentials. Raises AlreadyExists for a name or prefix that is taken."""
        require_keystore_free(self, name, prefix, region=region)
        self.add(schema.keystores, name=name, prefix=prefix.value, region=region, blocked=False, created_at=self.now)

    def set_blocked(self, name: str, *, blocked: bool, until: datetime | None = None) -> None:
        """Block a keystore, or unblock it. A block is possible without a version: proxies read it at each look.

        While blocked a keystore answers nothing but GetKeyMetadata, with DISABLED.
        """
        self._alter_keystore(name, blocked=blocked, blocked_until=until)

    def change_keystore(self, name: str, *, prefix: UriPathPrefix | None = None, region: str | None = None) -> None:
        """Move a keystore to another path prefix, or restrict it to callers that sign for a region ("": any).

        KMS must know the prefix: `XksProxyUriPath` of the key store. None leaves it as it is.
        """
        values: dict[str, object] = {}
        if region is not None:
            require_region(region or None)
            values["region"] = region or None
        if prefix is not None:
            require_prefix_free(self, prefix, except_for=name)
            values["prefix"] = prefix.value
        self._alter_keystore(name, **values)

    def remove_keystore(self, name: str) -> None:
        """Remove a keystore that has no keys and no live credentials; its retired ones go too. Raises InUse."""
        identity = require_empty(self, name)
        self.remove(schema.credentials, schema.credentials.c.keystore_id == identity)
        self.remove(schema.keystores, schema.keystores.c.id == identity)

    def _alter_keystore(self, name: str, **values: object) -> None:
        self.alter(schema.keystores, schema.keystores.c.id == keystore_id(self.connection, name), **values)


def require_keystore_free(state: Reading, name: str, prefix: UriPathPrefix, *, region: str | None) -> None:
    """Raises AlreadyExists, Refused unless a keystore can be made so."""
    require_keystore_name(name)
    require_region(region)
    table = schema.keystores
    if state.connection.execute(select(table.c.id).where(table.c.name == name)).first():
        raise AlreadyExists(f"there is a keystore {name!r} already")
    require_prefix_free(state, prefix, except_for=None)


def require_prefix_free(state: Reading, prefix: UriPathPrefix, *, except_for: str | None) -> None:
    """Raises AlreadyExists if a keystore has the path prefix, other than `except_for`."""
    table = schema.keystores
    owner = state.connection.execute(select(table.c.name).where(table.c.prefix == prefix.value)).scalar_one_or_none()
    if owner is not None and owner != except_for:
        shown = f"path prefix {prefix.value!r}" if prefix.value else "empty path prefix"
        raise AlreadyExists(f"the {shown} belongs to the keystore {owner!r}: choose another one")


def require_empty(state: Reading, name: str) -> int:
    """The row of a keystore without keys and live credentials. Raises InUse, NotFound."""
    identity = keystore_id(state.connection, name)
    keys = _count(state.connection, schema.external_keys, schema.external_keys.c.keystore_id == identity)
    live = _count(
        state.connection,
        schema.credentials,
        (schema.credentials.c.keystore_id == identity) & schema.credentials.c.retired_at.is_(None),
    )
    if keys or live:
        raise InUse(
            f"the keystore {name!r} is not empty (keys: {keys}, live credentials: {live}): only an empty one is"
            " deleted (`holdfast key unregister`, `holdfast credential retire`). To stop it at once, block it"
        )
    return identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An external key as it is to be registered, with the HSM's key `label` (and the `proof`'s CKA_ID).

    Spec, "API operations": each KMS key has a different external key. So one HSM key serves one external key of a
    keystore. In other keystores it may serve too, as the spec allows two accounts to do, if these are named in
    `share_with`; the encryptions of all then count as one. `prior_encryptions` were made before, elsewhere. `tag`:
    the one that the key's ciphertexts carry already, if it was registered before.
    """

    keystore: str
    external_key_id: ExternalKeyId
    hsm: str
    label: str
    proof: Proof
    takeover: Takeover | None = None
    prior_encryptions: int = 0
    share_with: Collection[str] = ()
    tag: bytes | None = None


def proof_values(proof: Proof) -> dict[str, Any]:
    """The columns of `key_generations` that keep a proof."""
    attributes = None if proof.attributes is None else msgspec.json.encode(proof.attributes, order="sorted").decode()
    return {
        "cka_id": proof.cka_id,
        "canary": proof.canary,
        "token_serial": proof.token_serial,
        "attributes": attributes,
        "check_value": proof.check_value,
        "world": proof.world,
    }


class KeyChanges(Writing):
    """Changes to external keys. They raise CatalogError."""

    def register_key(self, new: Registration) -> None:
        """An enabled external key with generation 1. The HSM is not asked.

        The canary was one encryption, which is counted.
        """
        identity = require_registrable(self, new)
        now, proof = self.now, new.proof
        key_id = self.add(
            schema.external_keys,
            keystore_id=identity,
            external_key_id=new.external_key_id.value,
            status=KeyStatus.ENABLED.value,
            takeover=new.takeover is not None,
            takeover_metadata=None if new.takeover is None else new.takeover.ciphertext_metadata,
            created_at=now,
            tag=new.tag or fresh_tag(),
            metadata_format=readable_format(self.connection, now),
        )
        self.add(
            schema.key_generations,
            **proof_values(proof),
            key_id=key_id,
            number=1,
            hsm=new.hsm,
            label=new.label,
            encryptions_reserved=new.prior_encryptions + (proof.canary is not None),
            created_at=now,
            state=GenerationState.ACTIVE.value,
            state_since=now,
            activated_at=now,
        )

    def upgrade_keys(self, key_ids: Collection[tuple[str, str]]) -> None:
        """Let keys, by keystore and external key id, make ciphertexts of the newest format. Raises InUse, NotFound.

        While a proxy lives that does not read it, nothing is changed.
        """
        table = schema.external_keys
        connection = self.connection
        readable = readable_format(connection, self.now)
        if readable < NEWEST_FORMAT:
            raise InUse(
                f"a proxy that still runs reads ciphertexts up to format {readable} only, and this is format"
                f" {NEWEST_FORMAT}: upgrade every proxy first. One that was stopped is forgotten after a minute"
            )
        for keystore, key in sorted(key_ids):
            if not self.alter(
                table,
                table.c.keystore_id == keystore_id(connection, keystore),
                table.c.external_key_id == key,
                metadata_format=NEWEST_FORMAT,
            ):
                raise _no_key(keystore, ExternalKeyId.parse(key))

    def unregister_key(self, keystore: str, external_key_id: ExternalKeyId) -> None:
        """Forget a disabled external key and its counts. The HSM keeps its key. Raises NotFound, InUse."""
        table = schema.external_keys
        connection = self.connection
        identity = require_unregistrable(self, keystore, external_key_id)
        generations, reports = schema.key_generations, schema.generation_reports
        own = select(generations.c.id).where(generations.c.key_id == identity)
        connection.execute(delete(reports).where(reports.c.generation_id.in_(own)))
        connection.execute(delete(schema.key_tags).where(schema.key_tags.c.key_id == identity))
        self.remove(generations, generations.c.key_id == identity)
        self.remove(table, table.c.id == identity)

    def pin_key(self, keystore: str, external_key_id: ExternalKeyId, kms_key_arns: Sequence[str]) -> None:
        """Have an external key serve these KMS keys only; none: every one. Raises NotFound."""
        table = schema.external_keys
        if not self.alter(
            table,
            table.c.keystore_id == keystore_id(self.connection, keystore),
            table.c.external_key_id == external_key_id.value,
            pinned_to=" ".join(kms_key_arns) or None,
        ):
            raise _no_key(keystore, external_key_id)

    def set_key_status(
        self, keystore: str, external_key_id: ExternalKeyId, status: KeyStatus, *, until: datetime | None = None
    ) -> None:
        """Enable or disable an external key; `until`: when an enabled one counts as disabled. Raises NotFound."""
        table = schema.external_keys
        if not self.alter(
            table,
            table.c.keystore_id == keystore_id(self.connection, keystore),
            table.c.external_key_id == external_key_id.value,
            status=status.value,
            enabled_until=until,
        ):
            raise _no_key(keystore, external_key_id)


def require_registrable(state: Reading, new: Registration) -> int:
    """The keystore's row, if the key can be registered so. Raises Refused, NotFound, AlreadyExists."""
    if new.tag is not None and not is_key_tag(new.tag):
        raise Refused("a tag has 12 bytes, each of them 0x80 or more; `holdfast key unregister` shows it")
    _check_key(new)
    if not 0 <= new.prior_encryptions <= _MOST_ENCRYPTIONS:
        raise Refused(f"prior encryptions are a number from 0 to 2^32 ({_MOST_ENCRYPTIONS})")
    identity = keystore_id(state.connection, new.keystore)
    _check_key_free(state.connection, identity, new.keystore, new.external_key_id)
    same = same_hsm_key(new.hsm, new.label, new.proof.cka_id, new.proof.token_serial)
    said = f"the key {new.label!r} of the HSM {new.hsm!r}"
    require_hsm_key_free(state.connection, new.keystore, same, said, new.share_with)
    return identity


def require_unregistrable(state: Reading, keystore: str, external_key_id: ExternalKeyId) -> int:
    """The row of a disabled external key. Raises NotFound, InUse."""
    table = schema.external_keys
    row = state.connection.execute(
        select(table.c.id, table.c.status)
        .where(table.c.keystore_id == keystore_id(state.connection, keystore))
        .where(table.c.external_key_id == external_key_id.value)
    ).first()
    if row is None:
        raise _no_key(keystore, external_key_id)
    if row.status == KeyStatus.ENABLED:
        raise InUse(
            f"the key {external_key_id} is enabled: only a disabled key is unregistered."
            f" `holdfast key disable {keystore} {external_key_id}` shows whether it is still in use"
        )
    identity: int = row.id
    return identity


def fresh_tag() -> bytes:
    """What an external key's ciphertexts will be known by."""
    return key_tag(token_bytes(KEY_TAG_BYTES))


def _no_key(keystore: str, external_key_id: ExternalKeyId) -> NotFound:
    return NotFound(
        f"the keystore {keystore!r} has no key {external_key_id}: `holdfast key list {keystore}` shows what it has"
    )


def same_hsm_key(hsm: str, label: str, cka_id: bytes | None, token_serial: str | None) -> Any:
    """The condition on `key_generations` for rows that may mean this key of the HSM.

    A row without a CKA_ID is found by its label alone, so it means every key of that label. One token may have
    several names in the configuration: its serial number decides, where it is known.
    """
    table = schema.key_generations
    token = table.c.hsm == hsm
    if token_serial is not None:
        token |= table.c.token_serial == token_serial
    same = token & (table.c.label == label)
    return same if cka_id is None else same & or_(table.c.cka_id.is_(None), table.c.cka_id == cka_id)


def require_region(region: str | None) -> None:
    """Raises Refused for what does not have the form of an AWS region's name; None is any region."""
    if region is not None and not REGION.fullmatch(region):
        raise Refused(f"{region!r} is not the name of an AWS region: names look like eu-central-1, us-gov-west-1")


def _count(connection: Connection, table: Any, condition: Any) -> int:
    return connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()


def require_key_place(hsm: str, label: str) -> None:
    """Raises Refused for what names no HSM, or cannot be a CKA_LABEL."""
    if not hsm:
        raise Refused("a key is kept in an HSM: name one of the configuration's [hsm.NAME] tables")
    if not label or len(label) > MAX_LABEL or "\x00" in label:
        raise Refused(f"a key's label (CKA_LABEL) has 1 to {MAX_LABEL} characters, and no NUL")


def _check_key(new: Registration) -> None:
    require_key_place(new.hsm, new.label)
    if new.proof.cka_id == b"":
        raise Refused("an empty CKA_ID finds nothing: leave it out, and the key is found by its label")
    metadata = None if new.takeover is None else new.takeover.ciphertext_metadata
    if metadata is not None and len(metadata) > MAX_CIPHERTEXT_METADATA:
        raise Refused(f"ciphertext metadata has at most {MAX_CIPHERTEXT_METADATA} bytes")
    if metadata is not None and not is_foreign_metadata(metadata):
        raise Refused(
            "the ciphertext metadata of AWS's sample looks like Holdfast's own: the two proxies' ciphertexts could"
            " not be distinguished"
        )


def _check_key_free(connection: Connection, identity: int, keystore: str, external_key_id: ExternalKeyId) -> None:
    table = schema.external_keys
    found = select(table.c.id).where(
        table.c.keystore_id == identity, table.c.external_key_id == external_key_id.value
    )
    if connection.execute(found).first():
        raise AlreadyExists(f"the keystore {keystore!r} has a key {external_key_id} already")


def require_hsm_key_free(
    connection: Connection, keystore: str, same: Any, said: str, share_with: Collection[str]
) -> None:
    """Raises AlreadyExists if a generation that fits the condition `same` is not one of the keystores named."""
    key, owner = schema.external_keys, schema.keystores
    found = connection.execute(
        select(owner.c.name, key.c.external_key_id).join_from(owner, key).join(schema.key_generations).where(same)
    ).all()
    for row in found:
        if row.name == keystore:
            raise AlreadyExists(
                f"{said} serves the external key {row.external_key_id} of this keystore already: each KMS key needs"
                " an HSM key of its own. If the label is used twice on the token, name the key by its CKA_ID"
            )
    others = sorted({row.name for row in found} - set(share_with))
    if others:
        raise AlreadyExists(
            f"{said} serves the keystore {others[0]!r} already: a caller of one of the two can decrypt what"
            f" was encrypted for the other. Choose another key, or if this is meant, add --share-with {others[0]}"
        )
