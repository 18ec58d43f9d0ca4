"""Steps of a key's generations, and what the nodes say of one that is to encrypt next."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from holdfast.keys.proof import Proof
from holdfast.keys.readiness import NodeReadiness, Readiness
from holdfast.keys.states import GenerationState, NotAllowed, Standing, Step, after
from holdfast.store import schema
from holdfast.store.changes import proof_values, require_hsm_key_free, require_key_place, same_hsm_key
from holdfast.store.database import Database
from holdfast.store.errors import InUse, NotFound, Refused
from holdfast.store.reads import Reading
from holdfast.store.rows import BadRow, generation_state, raw
from holdfast.store.use import live_nodes
from holdfast.store.writing import Writing
from holdfast.xks.aad import NEWEST_FORMAT

_MAX_FAULT = 1024


# ---- changes


def plan_generation(transaction: Writing, keystore: str, external_key_id: str, *, hsm: str, label: str) -> None:
    """Reserve the next number, and the label of its HSM key, in state `planned`. The HSM is not asked.

    One that is planned already is planned anew. Raises what `require_plannable` raises.
    """
    now, table = transaction.now, schema.key_generations
    key_id, own = require_plannable(transaction, keystore, external_key_id, hsm=hsm, label=label)
    values = {"hsm": hsm, "label": label, "state_since": now}
    planned = [row for row in own if row.state == GenerationState.PLANNED]
    if planned:
        transaction.alter(table, table.c.id == planned[0].id, **values)
        return
    transaction.add(
        table,
        **values,
        key_id=key_id,
        number=max(row.number for row in own) + 1,
        encryptions_reserved=0,
        created_at=now,
        state=GenerationState.PLANNED.value,
    )


def make_ready(transaction: Writing, generation_id: int, proof: Proof) -> None:
    """The HSM key of a planned generation exists and has made its canary, an encryption that is counted here."""
    values = {**proof_values(proof), "encryptions_reserved": 1}
    take_step(transaction, generation_id, Step.MAKE_READY, values)
    ask_again(transaction, generation_id)


def ask_again(transaction: Writing, generation_id: int) -> None:
    """Have every node look once more for the HSM key of a ready generation, with another C_Initialize if need be.

    Raises InUse if it is not ready.
    """
    row = _row(transaction.connection, generation_id)
    if row.state != GenerationState.READY:
        raise InUse(f"generation {row.number} is {row.state}, and not ready: there is nothing to look for")
    table = schema.key_generations
    transaction.alter(table, table.c.id == generation_id, looks=table.c.looks + 1)


def activate(transaction: Writing, generation_id: int) -> None:
    """Have a ready generation encrypt, and retire the one that did. Raises InUse while a live node lacks it."""
    found = readiness(transaction, generation_id, transaction.now)
    if not found.is_complete:
        raise InUse(
            f"the generation is {found.words()}, and becomes active only when it is on all:"
            f" {found.missing[0].words()}"
        )
    take_step(transaction, generation_id, Step.ACTIVATE)


def plan_destruction(transaction: Writing, generation_id: int, *, days: int) -> None:
    """Begin the waiting period, which `Step.KEEP` ends."""
    values = {"destroy_after": transaction.now + timedelta(days=days)}
    take_step(transaction, generation_id, Step.PLAN_DESTRUCTION, values)


def take_step(transaction: Writing, generation_id: int, step: Step, values: Mapping[str, Any] | None = None) -> None:
    """The step, and for the generation itself other `values`. Raises InUse where its state does not allow it."""
    connection, now, table = transaction.connection, transaction.now, schema.key_generations
    row = _row(connection, generation_id)
    if step is Step.DESTROY and row.destroy_after is not None and now < row.destroy_after:
        raise InUse(f"the waiting period of generation {row.number} ends at {row.destroy_after:%Y-%m-%d %H:%M} UTC")
    names = ("id", "number", "state", "compromised_at", "activated_at")
    own = connection.execute(select(*raw(table, *names)).where(table.c.key_id == row.key_id)).all()
    try:
        changed = after(step, row.number, {one.number: _standing(one) for one in own})
    except (NotAllowed, BadRow) as reason:
        raise InUse(str(reason)) from None
    by_number = {one.number: one for one in own}
    # The one that is retired first: the database takes no two active ones.
    for number in sorted(changed, key=lambda number: changed[number].state is GenerationState.ACTIVE):
        standing, old = changed[number], by_number[number]
        new: dict[str, Any] = dict(values or {}) if number == row.number else {}
        if standing.state is GenerationState.ACTIVE and old.activated_at is None:
            new["activated_at"] = now
        if standing.compromised and old.compromised_at is None:
            new["compromised_at"] = now
        if step is Step.KEEP:
            new["destroy_after"] = None
        transaction.alter(table, table.c.id == old.id, state=standing.state.value, state_since=now, **new)


# ---- what can be asked before


def require_plannable(
    state: Reading, keystore: str, external_key_id: str, *, hsm: str, label: str
) -> tuple[int, Sequence[Row[Any]]]:
    """The key's row and those of its generations. Raises NotFound, Refused, AlreadyExists; InUse while one is ready.

    InUse also for a key of format 1: only format 2 tells an unknown generation from a changed ciphertext.
    """
    require_key_place(hsm, label)
    key, owner, table = schema.external_keys, schema.keystores, schema.key_generations
    connection = state.connection
    found = connection.execute(
        select(key.c.id, key.c.metadata_format)
        .join_from(key, owner)
        .where(owner.c.name == keystore, key.c.external_key_id == external_key_id)
    ).first()
    if found is None:
        raise NotFound(f"the keystore {keystore!r} has no key {external_key_id}")
    if found.metadata_format < NEWEST_FORMAT:
        raise InUse(
            f"the key {external_key_id} makes ciphertexts of format {found.metadata_format}, and only format"
            f" {NEWEST_FORMAT} rotates: `holdfast key upgrade {keystore} {external_key_id}`"
        )
    own = connection.execute(
        select(*raw(table, "id", "number", "state")).where(table.c.key_id == found.id).order_by(table.c.number)
    ).all()
    if not own:
        raise Refused(f"the key {external_key_id} has no generation: its row in the catalog is wrong")
    for row in own:
        if row.state == GenerationState.READY:
            raise InUse(
                f"generation {row.number} of the key {external_key_id} is ready: activate it first"
                f" (`holdfast key rotate activate {keystore} {external_key_id}`)"
            )
    planned = [row.id for row in own if row.state == GenerationState.PLANNED]
    same = same_hsm_key(hsm, label, None, None) & table.c.id.not_in(planned)
    require_hsm_key_free(connection, keystore, same, f"the key {label!r} of the HSM {hsm!r}", ())
    return found.id, own


def readiness(state: Reading, generation_id: int, now: datetime) -> Readiness:
    """What the live nodes say of a generation, as of the last time that they were asked. Raises NotFound."""
    connection = state.connection
    looks = _row(connection, generation_id).looks
    table = schema.generation_reports
    reports = connection.execute(
        select(*raw(table, "proxy_id", "worker", "fault")).where(
            table.c.generation_id == generation_id, table.c.looks == looks
        )
    ).all()
    live = live_nodes(connection, now, "id", "workers")
    return Readiness([_of_node(node, [one for one in reports if one.proxy_id == node.id]) for node in live])


def _of_node(node: Row[Any], reports: Sequence[Row[Any]]) -> NodeReadiness:
    workers = node.workers if type(node.workers) is int else None
    own = [one for one in reports if workers is not None and type(one.worker) is int and one.worker < workers]
    return NodeReadiness(
        str(node.id),
        workers,
        sum(one.fault is None for one in own),
        tuple(sorted({str(one.fault) for one in own if one.fault is not None})),
    )


# ---- what workers write


class GenerationReports(Database):
    """What workers find out about generations that are ready. It makes no new version. Raises CatalogError."""

    def report_generation(
        self, generation_id: int, *, proxy_id: str, worker: int, looks: int, fault: str | None
    ) -> None:
        """What one worker has found when it was asked the `looks`-th time."""
        table, generations = schema.generation_reports, schema.key_generations
        key = {"generation_id": generation_id, "proxy_id": proxy_id, "worker": worker}
        said = {"looks": looks, "fault": None if fault is None else fault[:_MAX_FAULT], "reported_at": self._now()}
        with self._writing() as connection:
            if not connection.execute(select(generations.c.id).where(generations.c.id == generation_id)).first():
                return  # the key was forgotten meanwhile
            where = [table.c[name] == value for name, value in key.items()]
            if not connection.execute(update(table).where(*where).values(said)).rowcount:
                connection.execute(insert(table).values(**key, **said))


def _row(connection: Connection, generation_id: int) -> Row[Any]:
    table = schema.key_generations
    names = ("id", "key_id", "number", "state", "looks")
    row = connection.execute(
        select(*raw(table, *names), table.c.destroy_after).where(table.c.id == generation_id)
    ).first()
    if row is None:
        raise NotFound(f"there is no key generation {generation_id} in the catalog")
    found: Row[Any] = row  # type: ignore[assignment] # its columns' types, which a row by hand need not have
    return found


def _standing(row: Row[Any]) -> Standing:
    return Standing(generation_state(row.state), compromised=row.compromised_at is not None)
