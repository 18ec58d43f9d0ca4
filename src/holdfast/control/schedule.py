"""Which keys are due to rotate: their cryptoperiod is over, or they have encrypted often enough."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.config.model import Configuration
from holdfast.config.storage import Rotation
from holdfast.control.actions.rotation import ActivateGeneration, CheckRotation, PrepareRotation
from holdfast.control.runner import Control
from holdfast.hsm.pkcs11.profile import profile_of
from holdfast.keys.description import Cryptoperiod
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow, Reading
from holdfast.xks.aad import NEWEST_FORMAT
from holdfast.xks.types import KeyStatus


@dataclass(frozen=True, slots=True)
class DueKey:
    """A key whose active generation should not encrypt much longer. `why` and `by_hand` are in words.

    `by_hand` None: `holdfast key rotate due` rotates it; else why a person must.
    """

    row: KeyRow
    why: str
    by_hand: str | None = None


def due_keys(state: Reading, configuration: Configuration, now: datetime) -> list[DueKey]:
    """Every key that is due, in the order of the catalog."""
    blocked = {row.name for row in state.keystores() if row.is_blocked(now)}
    active = [row for row in state.keys(None) if row.state is GenerationState.ACTIVE]
    totals = state.encryption_totals()
    return [
        DueKey(row, why, _by_hand(configuration, row, blocked, now))
        for row in active
        if (why := why_due(configuration.rotation, row, totals, now)) is not None
    ]


def waiting_rotation(control: Control, keystore: str, key: str) -> str | None:
    """The id of a step of the key's rotation that waits for approval: it is not asked for a second time."""
    for request in control.requests(undecided=True):
        action = request.plan.action
        if not isinstance(action, PrepareRotation | CheckRotation | ActivateGeneration):
            continue
        if request.outcome is None and (action.keystore, action.key) == (keystore, key):
            return request.plan.id
    return None


def why_due(rotation: Rotation, row: KeyRow, totals: Mapping[int, int], now: datetime) -> str | None:
    """Why the active generation of this row should be followed by another one; None: it should not yet."""
    return "; ".join(_reasons(rotation, row, totals, now)) or None


def _reasons(rotation: Rotation, row: KeyRow, totals: Mapping[int, int], now: datetime) -> Iterator[str]:
    end = cryptoperiod_of(rotation, row).encrypts_until(row.activated_at)
    if end is not None and end <= now:
        yield f"its cryptoperiod ended on {end:%Y-%m-%d}"
    count = totals.get(row.generation_id, 0)
    if rotation.encryptions is not None and count >= rotation.encryptions:
        yield f"it has encrypted up to {count:,} times, and {rotation.encryptions:,} are set"


def cryptoperiod_of(rotation: Rotation, row: KeyRow) -> Cryptoperiod:
    """The key's own; for how long it encrypts, where nobody has said, the configuration's."""
    own = row.description.cryptoperiod
    return own if own.originator is not None else replace(own, originator=rotation.age_days)


def _by_hand(configuration: Configuration, row: KeyRow, blocked: Collection[str], now: datetime) -> str | None:
    table = configuration.serving.get(row.hsm)
    older = row.metadata_format < NEWEST_FORMAT
    makes_keys = table is not None and profile_of(table.settings).generates_keys
    obstacles = {
        "its keystore is blocked": row.keystore in blocked,
        "it is disabled": row.status is KeyStatus.DISABLED
        or (row.enabled_until is not None and now >= row.enabled_until),
        f"it is stopped: {row.stopped}": row.stopped is not None,
        f"its ciphertexts are of format {row.metadata_format}: `holdfast key upgrade` comes first": older,
        f"the configuration has no [hsm.{row.hsm}] that serves": table is None,
        "the HSM's own tool makes its keys: `holdfast key rotate prepare` says what to type": not makes_keys,
    }
    return next((words for words, is_there in obstacles.items() if is_there), None)
