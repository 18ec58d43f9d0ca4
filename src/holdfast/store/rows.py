"""Rows of the database as values, or as a sentence that says what is wrong with them.

The database is a less trusted store: someone may have changed it by hand, restored half of it, or attacked it.
SQLite keeps any type in any column. So rows are fetched as they lie there and checked one by one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Row, Table, type_coerce
from sqlalchemy.types import NullType

from holdfast.keys.description import LONGEST_PERIOD, Cryptoperiod, Description, Purpose
from holdfast.keys.model import ExternalKey, Generation, Takeover
from holdfast.keys.states import GenerationState
from holdfast.xks.aad import MAX_CIPHERTEXT_METADATA, NEWEST_FORMAT, is_key_tag
from holdfast.xks.errors import XksError
from holdfast.xks.types import AccessKeyId, ExternalKeyId, KeyStatus, UriPathPrefix

KEYSTORE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
MAX_LABEL = 255
"""Characters of a CKA_LABEL here. PKCS#11 sets no limit; no vendor's tool makes longer ones."""
KMS_KEY_ARN = re.compile(r"arn:[a-z0-9-]{1,32}:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,128}")
"""As `kmsKeyArn` is in requests: of the key itself, never of an alias."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_STATUSES = {status.value: status for status in KeyStatus}
_STATES = {state.value: state for state in GenerationState}
_MAX_HSM = 64
_MAX_GENERATION = 2**32 - 1


KEYSTORE = ("id", "name", "prefix", "region", "blocked", "blocked_until")
"""The columns of a keystore's row, whose functions are below."""
CREDENTIAL = ("access_key_id", "keystore_id", "secret_ref")
"""The columns that `credential` looks at."""
EXTERNAL_KEY = (
    "external_key_id",
    "status",
    "takeover",
    "takeover_metadata",
    "tag",
    "metadata_format",
    "enabled_until",
    "pinned_to",
    "purpose",
)
"""The columns that `external_key` looks at."""
DESCRIPTION = ("purpose", "owner", "description", "external_reference", "originator_days", "recipient_days")
"""The columns that `description` looks at."""
RECORDED_GENERATION = (
    "id",
    "key_id",
    "number",
    "hsm",
    "label",
    "cka_id",
    "canary",
    "stopped_at",
    "stopped_reason",
    "token_serial",
    "state",
    "looks",
    "compromised_at",
    "destroy_after",
)
"""The columns of a generation that a record covers. Another one goes to the end (`audit.catalog_digest.encode`)."""
GENERATION = (*RECORDED_GENERATION, "encryptions_reserved")
"""The columns that `generation` looks at."""


class BadRow(Exception):
    """What is wrong with a row, in words."""


def raw(table: Table, *names: str) -> list[ColumnElement[Any]]:
    """Columns of which the driver's own values are wanted: SQLAlchemy's conversions fail for all rows at once."""
    columns: Iterable[Column[Any]] = (table.c[name] for name in names)
    return [type_coerce(column, NullType()).label(column.name) for column in columns]


def keystore_name(row: Row[Any]) -> str:
    """The name. Raises BadRow."""
    return _text(row.name, "name", KEYSTORE_NAME)


def prefix(row: Row[Any]) -> UriPathPrefix:
    """The path prefix. Raises BadRow."""
    try:
        return UriPathPrefix.parse(_string(row.prefix, "prefix"))
    except XksError as error:
        raise BadRow(f"prefix {shown(row.prefix)}: {error.message}") from None


def region(row: Row[Any]) -> str | None:
    """The region that callers must sign for. Raises BadRow."""
    return None if row.region is None else _text(row.region, "region", _REGION)


def boolean(value: object, column: str) -> bool:
    """SQLite has 0 and 1 for false and true. Raises BadRow."""
    if type(value) is bool or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise BadRow(f"{column} is {shown(value)}, neither true nor false")


def credential(row: Row[Any]) -> tuple[AccessKeyId, int, str]:
    """Its access key id, its keystore's row, and where its secret lies. Raises BadRow."""
    try:
        identity = AccessKeyId.parse(_string(row.access_key_id, "access_key_id"))
    except XksError as error:
        raise BadRow(f"access_key_id {shown(row.access_key_id)}: {error.message}") from None
    return identity, integer(row.keystore_id, "keystore_id"), _string(row.secret_ref, "secret_ref")


def external_key_id(row: Row[Any]) -> ExternalKeyId:
    """The external key id. Raises BadRow."""
    try:
        return ExternalKeyId.parse(_string(row.external_key_id, "external_key_id"))
    except XksError as error:
        raise BadRow(f"external_key_id {shown(row.external_key_id)}: {error.message}") from None


def key_status(row: Row[Any]) -> KeyStatus:
    """The status. Raises BadRow."""
    status = _STATUSES.get(row.status) if type(row.status) is str else None
    if status is None:
        raise BadRow(f"status is {shown(row.status)}, neither ENABLED nor DISABLED")
    return status


def takeover(row: Row[Any]) -> Takeover | None:
    """What AWS's sample proxy made of the key. Raises BadRow."""
    taken = boolean(row.takeover, "takeover")
    metadata = _octets(row.takeover_metadata, "takeover_metadata")
    if metadata is not None and len(metadata) > MAX_CIPHERTEXT_METADATA:
        raise BadRow(f"takeover_metadata has {len(metadata)} bytes, more than {MAX_CIPHERTEXT_METADATA}")
    return Takeover(metadata) if taken else None


def external_key(row: Row[Any], name: str, generations: Iterable[Row[Any]]) -> ExternalKey:
    """The key `name` with its generations. Raises BadRow if one of these rows is wrong."""
    own = {made.number: made for made in map(generation, generations)}
    if not own:
        raise BadRow("it has no generation: no HSM key is recorded for it")
    if row.purpose != Purpose.XKS_GCM:
        raise BadRow(f"purpose is {shown(row.purpose)}: keys of another purpose are not for AWS KMS")
    active = [made for made in own.values() if made.state is GenerationState.ACTIVE]
    if len(active) != 1:
        raise BadRow(f"{len(active)} of its generations are active, and exactly one encrypts")
    return ExternalKey(
        external_key_id=name,
        status=key_status(row),
        active=active[0],
        generations=own,
        takeover=takeover(row),
        tag=tag(row),
        metadata_format=metadata_format(row),
        enabled_until=enabled_until(row),
        pinned_to=pinned_to(row),
    )


def description(row: Row[Any], tags: Mapping[str, str]) -> Description:
    """What people say of the key. It decides nothing, so what is wrong is shown as it is, or left out."""
    return Description(
        purpose=plain(row.purpose),
        owner=said(row.owner),
        description=said(row.description),
        external_reference=said(row.external_reference),
        cryptoperiod=Cryptoperiod(days(row.originator_days), days(row.recipient_days)),
        tags=tags,
    )


def attributes(value: object) -> dict[str, bool] | None:
    """The CKA_ booleans of an HSM key; None for anything else."""
    try:
        return msgspec.json.decode(value, type=dict[str, bool]) if isinstance(value, str) else None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None


def octets(value: object) -> bytes | None:
    """Octets; None for anything else."""
    return value if type(value) is bytes else None


def said(value: object) -> str | None:
    """A text that a person wrote, or what lies there instead of one."""
    if value is None:
        return None
    return value if type(value) is str and value.isprintable() else shown(value)


def days(value: object) -> int | None:
    """A usage period in days; None for anything else."""
    return value if type(value) is int and 1 <= value <= LONGEST_PERIOD else None


def enabled_until(row: Row[Any]) -> datetime | None:
    """When an enabled key counts as disabled. Raises BadRow."""
    found = moment(row.enabled_until)
    if found is None and row.enabled_until is not None:
        raise BadRow(f"enabled_until is {shown(row.enabled_until)}, not a time")
    return found


def pinned_to(row: Row[Any]) -> tuple[str, ...]:
    """The KMS keys that the key serves; empty: every one. Raises BadRow."""
    if row.pinned_to is None:
        return ()
    arns = _string(row.pinned_to, "pinned_to").split(" ")
    if not all(map(KMS_KEY_ARN.fullmatch, arns)):
        raise BadRow(f"pinned_to is {shown(row.pinned_to)}, not the ARNs of KMS keys")
    return tuple(arns)


def tag(row: Row[Any]) -> bytes:
    """What the key's ciphertexts are known by. Raises BadRow."""
    found = _octets(row.tag, "tag")
    if found is None or not is_key_tag(found):
        raise BadRow(f"tag is {shown(found)}, not 12 bytes of 0x80 and more")
    return found


def metadata_format(row: Row[Any]) -> int:
    """The format of the ciphertext metadata that the key makes. Raises BadRow."""
    found = integer(row.metadata_format, "metadata_format")
    if not 1 <= found <= NEWEST_FORMAT:
        raise BadRow(f"metadata_format is {found}: this Holdfast makes 1 to {NEWEST_FORMAT}")
    return found


def generation(row: Sequence[Any]) -> Generation:
    """One generation, from the columns GENERATION. Raises BadRow."""
    identity, _, number, hsm, label, cka_id, canary, stopped_at, reason, serial, state, looks, *_, reserved = row
    if not 1 <= integer(number, "number") <= _MAX_GENERATION:
        raise BadRow(f"number is {number}, not 1 to {_MAX_GENERATION}")
    if not 1 <= len(_string(hsm, "hsm")) <= _MAX_HSM:
        raise BadRow(f"hsm {shown(hsm)} names no HSM")
    if not 1 <= len(_string(label, "label")) <= MAX_LABEL or "\x00" in label:
        raise BadRow(f"label {shown(label)} is no CKA_LABEL of 1 to {MAX_LABEL} characters")
    if _octets(cka_id, "cka_id") == b"":
        raise BadRow("cka_id is empty: it finds no key")
    count(reserved)
    return Generation(
        integer(identity, "id"),
        number,
        hsm,
        label,
        cka_id,
        _octets(canary, "canary"),
        None if stopped_at is None else reason if isinstance(reason, str) else "no reason is recorded",
        None if serial is None else _string(serial, "token_serial"),
        generation_state(state),
        integer(looks, "looks"),
    )


def generation_state(value: object) -> GenerationState:
    """The state. Raises BadRow."""
    state = _STATES.get(value) if type(value) is str else None
    if state is None:
        raise BadRow(f"state is {shown(value)}: there are {', '.join(GenerationState)}")
    return state


def is_false(value: object) -> bool:
    """Whether a boolean column says no, and nothing else: of a block, anything else is a yes."""
    return value is False or (type(value) is int and value == 0)


def moment(value: object) -> datetime | None:
    """A time in UTC; None for anything else. SQLite keeps times as texts without a zone."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(found, datetime):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def count(value: object) -> int:
    """A count of encryptions. Raises BadRow."""
    number = integer(value, "encryptions_reserved")
    if number < 0:
        raise BadRow(f"encryptions_reserved is {number}, below zero")
    return number


def integer(value: object, column: str) -> int:
    """A whole number. Raises BadRow."""
    if type(value) is not int:
        raise BadRow(f"{column} is {shown(value)}, not a whole number")
    return value


def plain(value: object) -> str:
    """A name as it is, if it is one; else as `shown`."""
    return value if type(value) is str and _NAME.fullmatch(value) else shown(value)


def shown(value: object) -> str:
    """A value of unknown length and type, for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 (half a line)


def _text(value: object, column: str, grammar: re.Pattern[str]) -> str:
    text = _string(value, column)
    if not grammar.fullmatch(text):
        raise BadRow(f"{column} is {shown(text)}, which Holdfast never writes there")
    return text


def _string(value: object, column: str) -> str:
    if type(value) is not str:
        raise BadRow(f"{column} is {shown(value)}, not a text")
    if not value.isprintable() and (column != "label" or not _is_utf8(value)):
        raise BadRow(f"{column} is {shown(value)}, which cannot be printed")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _octets(value: object, column: str) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    raise BadRow(f"{column} is {shown(value)}, not octets")
