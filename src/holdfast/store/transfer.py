"""The whole catalog as one document, to move it between SQLite and PostgreSQL. It holds no secrets."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import func, insert, select, update

from holdfast.keys.description import Purpose
from holdfast.keys.states import GenerationState
from holdfast.secrets.files import SecretFiles
from holdfast.store import schema
from holdfast.store.changes import fresh_tag
from holdfast.store.database import Database
from holdfast.store.errors import InUse, Refused
from holdfast.store.reads import Reading
from holdfast.store.use import live_proxies
from holdfast.store.view import View
from holdfast.store.writing import Writing

_FORMAT = "holdfast-catalog-1"


class ExportedCredential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `credentials`."""

    access_key_id: str
    secret_ref: str
    created_at: datetime
    last_used_at: datetime | None
    retired_at: datetime | None


class ExportedDrill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `drills`."""

    change_id: str
    hsm: str
    token_serial: str
    time: datetime
    opened: int
    failed: int


class ExportedResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `drill_results`."""

    hsm: str
    token_serial: str
    time: datetime
    outcome: str
    detail: str
    opened_at: datetime | None


class ExportedAttestation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `attestations`."""

    hsm: str
    token_serial: str
    label: str
    cka_id: bytes | None
    looked_at: datetime | None
    change_id: str


class ExportedGeneration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `key_generations`. `state` None: of a catalog in which the highest number encrypted."""

    number: int
    hsm: str
    label: str
    cka_id: bytes | None
    encryptions_reserved: int
    created_at: datetime
    canary: bytes | None
    stopped_at: datetime | None
    stopped_reason: str | None
    token_serial: str | None
    state: str | None = None
    state_since: datetime | None = None
    activated_at: datetime | None = None
    compromised_at: datetime | None = None
    destroy_after: datetime | None = None
    attributes: str | None = None
    check_value: bytes | None = None
    world: str | None = None
    drill_results: list[ExportedResult] = []
    attestations: list[ExportedAttestation] = []


class ExportedKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `external_keys` and its `key_tags`. `tag` None: of a catalog whose ciphertexts carry none."""

    external_key_id: str
    status: str
    takeover: bool
    takeover_metadata: bytes | None
    created_at: datetime
    generations: list[ExportedGeneration]
    tag: bytes | None = None
    metadata_format: int = 1
    enabled_until: datetime | None = None
    pinned_to: str | None = None
    purpose: str = Purpose.XKS_GCM.value
    owner: str | None = None
    description: str | None = None
    external_reference: str | None = None
    originator_days: int | None = None
    recipient_days: int | None = None
    key_tags: dict[str, str] = {}


class ExportedKeystore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `keystores`, and everything that belongs to it."""

    name: str
    prefix: str
    region: str | None
    blocked: bool
    created_at: datetime
    credentials: list[ExportedCredential]
    keys: list[ExportedKey]
    blocked_until: datetime | None = None


class ExportedOperator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `operators`."""

    name: str
    roles: str
    public_key: str | None
    enrolled_at: datetime


class Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A catalog as of one version. `running`: proxies that were seen within the last minute."""

    format: str
    version: int
    exported_at: datetime
    running: int
    keystores: list[ExportedKeystore]
    operators: list[ExportedOperator] = []
    rules: dict[str, str] = {}
    drills: list[ExportedDrill] = []

    def to_json(self) -> bytes:
        """Indented JSON; octets are Base64."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def parse(cls, document: bytes) -> "Export":
        """Raises Refused."""
        try:
            export = msgspec.json.decode(document, type=cls)
        except (msgspec.DecodeError, ValueError) as error:
            raise Refused(f"this is not what `holdfast catalog export` writes: {error}") from None
        if export.format != _FORMAT:
            raise Refused(f"the export has the format {export.format!r}, and this Holdfast reads {_FORMAT!r}")
        return export


class Transfer(Database):
    """Writes a catalog out. Raises CatalogError."""

    _secrets: SecretFiles

    def export(self) -> Export:
        """Everything but secrets and the list of proxies, as of one moment. Raises Refused if a row is wrong."""
        with self._reading() as connection:
            view = View()
            view.refresh(connection, self._secrets.read)
            _refuse_bad_rows(view)
            rows = {
                table.name: connection.execute(select(table).order_by(*table.primary_key)).mappings().all()
                for table in (
                    schema.keystores,
                    schema.credentials,
                    schema.external_keys,
                    schema.key_tags,
                    schema.key_generations,
                    schema.drill_results,
                    schema.attestations,
                    schema.drills,
                    schema.operators,
                    schema.rules,
                )
            }
            running = connection.execute(select(func.count()).select_from(schema.proxies)).scalar_one()
            running = live_proxies(connection, self._now()) if running else 0
        results = _grouped(rows["drill_results"], "generation_id", ExportedResult)
        attestations = _grouped(rows["attestations"], "generation_id", ExportedAttestation)
        generations: dict[int, list[ExportedGeneration]] = {}
        for row in rows["key_generations"]:
            number = row["id"]
            evidence = {"drill_results": results.get(number, []), "attestations": attestations.get(number, [])}
            generations.setdefault(row["key_id"], []).append(_made(ExportedGeneration, row, **evidence))
        keys: dict[int, list[ExportedKey]] = {}
        tags: dict[int, dict[str, str]] = {}
        for row in rows["key_tags"]:
            tags.setdefault(row["key_id"], {})[row["name"]] = row["value"]
        for row in rows["external_keys"]:
            own = generations.get(row["id"], [])
            key = _made(ExportedKey, row, generations=own, key_tags=tags.get(row["id"], {}))
            keys.setdefault(row["keystore_id"], []).append(key)
        credentials = _grouped(rows["credentials"], "keystore_id", ExportedCredential)
        return Export(
            format=_FORMAT,
            version=view.version,
            exported_at=self._now(),
            running=running,
            keystores=[
                _made(
                    ExportedKeystore,
                    row,
                    credentials=credentials.get(row["id"], []),
                    keys=keys.get(row["id"], []),
                )
                for row in rows["keystores"]
            ],
            operators=[_made(ExportedOperator, row) for row in rows["operators"]],
            rules={row["name"]: row["content"] for row in rows["rules"]},
            drills=[_made(ExportedDrill, row) for row in rows["drills"]],
        )


class ImportChanges(Writing):
    """Reads a catalog in. Raises CatalogError."""

    def import_(self, export: Export) -> int:
        """Fill an empty catalog; its version, which is above the exported one. Raises InUse, Refused.

        So a machine that has seen the catalog at the exported version takes this one for newer.
        """
        connection = self.connection
        require_nothing(self)
        version: int = connection.execute(select(schema.catalog.c.version)).scalar_one()
        version = max(version, export.version + 1)
        connection.execute(update(schema.catalog).values(version=version, removed=version))
        for keystore in export.keystores:
            keystore_id = self.add(schema.keystores, **_values(keystore))
            for credential in keystore.credentials:
                self.add(schema.credentials, keystore_id=keystore_id, **_values(credential))
            for key in keystore.keys:
                self._import_key(keystore_id, key)
        for operator in export.operators:
            connection.execute(insert(schema.operators).values(**msgspec.structs.asdict(operator)))
        for drill in export.drills:
            connection.execute(insert(schema.drills).values(**msgspec.structs.asdict(drill)))
        for name, content in export.rules.items():
            connection.execute(insert(schema.rules).values(name=name, content=content))
        view = View(compares=False)
        view.refresh(connection, self.secrets.read)
        _refuse_bad_rows(view)
        return version

    def _import_key(self, keystore_id: int, key: ExportedKey) -> None:
        connection = self.connection
        tagged = _values(key) | {"tag": key.tag or fresh_tag()}
        key_id = self.add(schema.external_keys, keystore_id=keystore_id, **tagged)
        for name, value in key.key_tags.items():
            connection.execute(insert(schema.key_tags).values(key_id=key_id, name=name, value=value))
        for generation in _with_states(key.generations):
            generation_id = self.add(schema.key_generations, key_id=key_id, **_values(generation))
            for table, found in (
                (schema.drill_results, generation.drill_results),
                (schema.attestations, generation.attestations),
            ):
                for one in found:
                    row = structs.asdict(one)
                    connection.execute(insert(table).values(generation_id=generation_id, **row))


def require_nothing(state: Reading) -> None:
    """Raises InUse unless the catalog is empty."""
    if state.connection.execute(select(schema.keystores.c.id).limit(1)).first() is not None:
        raise InUse("there are keystores in this catalog: an export is read into an empty one only")
    if state.connection.execute(select(schema.operators.c.name).limit(1)).first() is not None:
        raise InUse("operators are enrolled in this catalog: an export is read into an empty one only")


def _refuse_bad_rows(view: View) -> None:
    if view.bad_rows:
        raise Refused(f"a row is wrong, so nothing was done: {view.bad_rows[0]}")
    if view.unexplained:
        raise Refused(f"nothing was done: {view.unexplained[0]}")


def _with_states(generations: list[ExportedGeneration]) -> list[ExportedGeneration]:
    newest = max((generation.number for generation in generations), default=0)
    return [
        generation
        if generation.state is not None
        else structs.replace(
            generation,
            state=(GenerationState.ACTIVE if generation.number == newest else GenerationState.RETIRED).value,
            state_since=generation.created_at,
            activated_at=generation.created_at,
        )
        for generation in generations
    ]


def _made(kind: Any, row: Any, **more: object) -> Any:
    return kind(**{name: row[name] for name in kind.__struct_fields__ if name not in more}, **more)


def _grouped(rows: Any, column: str, kind: Any) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(_made(kind, row))
    return groups


def _values(part: msgspec.Struct) -> dict[str, Any]:
    lists = ("credentials", "keys", "generations", "key_tags", "drill_results", "attestations")
    return {name: getattr(part, name) for name in part.__struct_fields__ if name not in lists}
