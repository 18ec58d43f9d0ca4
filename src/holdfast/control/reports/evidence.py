"""Reports on what was done, from the records of changes, the logs and the events."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

import msgspec

from holdfast.audit.faults import AuditFault
from holdfast.audit.reconcile import Differences, Reconciled
from holdfast.audit.records import Change, Effect
from holdfast.audit.search import SignedLog
from holdfast.control.plan import in_words
from holdfast.control.reports.document import NONE, Cell, Report, Table
from holdfast.control.reports.source import Source
from holdfast.keys.states import GenerationState
from holdfast.store.drills import drilled, drills
from holdfast.store.log_directory import directory_reader
from holdfast.store.records import APPLIED

_KEYSTORE = "keystore "
_ASSERTED = (
    "Who asked is the operating system's user, as asserted. Who approved is proven by the signature in the record."
)


def transitions(source: Source) -> Report:
    """Every change to a key, with the place of its proof."""
    entries, trouble = _entries(source)
    rows = [
        (
            row.time,
            row.change.subject,
            row.change.action,
            "; ".join(in_words(row.change.effects)) or _left_out(row.change),
            row.outcome,
            _who(row.change),
            ", ".join(one.name for one in row.change.approvals) or "nobody",
            row.change.reason or NONE,
            row.change.ticket or NONE,
            row.change.catalog_version,
            row.id,
            "waits" if row.logged is None else row.logged,
            entries.get(row.id, None if trouble else "not in it"),
        )
        for row in source.rows
        if row.change is not None and row.change.action.startswith("key ")
    ]
    unreadable = [(row.time, row.number, row.id) for row in source.rows if row.change is None]
    audit = source.configuration.audit
    directory = None if audit is None else audit.control_directory
    return source.report(
        "transitions",
        "State transitions of keys",
        "Which key came into which state when, by whom, with whose approval, and where is the proof?",
        Table(
            "transitions",
            "Changes to keys, the oldest first",
            (
                "Time",
                "Subject",
                "Change",
                "From and to",
                "Outcome",
                "Asked by",
                "Approved by",
                "Reason",
                "Ticket",
                "Catalog version",
                "Change id",
                "In the control log since",
                "Entry of the control log",
            ),
            rows,
            "No change to a key is recorded.",
        ),
        Table(
            "unreadable",
            "Rows that are no records: somebody has changed them by hand",
            ("Time", "Row", "Change id"),
            unreadable,
            "There are none.",
        ),
        limits=(
            *([trouble] if trouble else []),
            (
                f"The proof of a change: `holdfast audit prove {directory or 'DIRECTORY'} CHANGE-ID`; it is"
                " checked with `holdfast audit check-proof`, on any machine. This report itself proves nothing."
            ),
            _ASSERTED,
            "What was done with the HSM's own tools is not known to Holdfast.",
        ),
    )


def _entries(source: Source) -> tuple[dict[str, int], str]:
    """The entry of each change in the control log, and why they are not known, if so."""
    audit = source.configuration.audit
    if audit is None or audit.control_directory is None:
        return {}, "The control log is not on this host (`control_directory` in [audit]): entries are not known."
    try:
        return {
            change.id: index for index, change in SignedLog(directory_reader(audit.control_directory)).changes()
        }, ""
    except (AuditFault, OSError) as error:
        said = getattr(error, "message", None) or str(error)
        return {}, f"The control log in {audit.control_directory} cannot be read: {said}"


def _who(change: Change) -> str:
    return f"{change.actor.name} ({change.actor.known_by})"


def _left_out(change: Change) -> str:
    return f"{change.effects_left_out} effects, too many for the record" if change.effects_left_out else NONE


# ---- revocation


class _Event(msgspec.Struct, rename="camel"):
    timestamp: datetime
    decision: str
    keystore: str | None = None
    error_name: str | None = None


@dataclass(slots=True)
class _Block:
    """A keystore that was blocked, and what the events say of that time."""

    keystore: str
    began: Change
    ended: Change | None = None
    last_success: datetime | None = None
    first_refusal: datetime | None = None
    refusals: int = 0
    first_success_after: datetime | None = field(default=None)

    def take(self, event: _Event) -> None:
        """Events are in no certain order: several workers write them."""
        at = event.timestamp
        if at < self.began.time:
            return
        after = self.ended is not None and at >= self.ended.time
        if event.decision == "allow":
            if after:
                self.first_success_after = min(at, self.first_success_after or at)
            else:
                self.last_success = max(at, self.last_success or at)
        elif not after and event.error_name == "InvalidStateException":
            self.refusals += 1
            self.first_refusal = min(at, self.first_refusal or at)


def revocation(source: Source, events: Iterable[bytes], *, seen: str) -> Report:
    """Each block of a key store, as a drill or in earnest. `seen` says which events there are."""
    blocks = [*_blocks(source.changes)]
    by_keystore: dict[str, list[_Block]] = {}
    for block in blocks:
        by_keystore.setdefault(block.keystore, []).append(block)
    damaged = 0
    for line in events:
        try:
            event = msgspec.json.decode(line, type=_Event)
        except msgspec.DecodeError:
            damaged += bool(line.strip())
            continue
        for block in by_keystore.get(event.keystore or "", ()):
            block.take(event)
    return source.report(
        "revocation",
        "Revocation drills",
        "When was a key store blocked, from when on was it refused, and when did it serve again?",
        Table(
            "blocks",
            "Blocks, the oldest first",
            (
                "Key store",
                "Blocked at",
                "By",
                "Reason",
                "Ticket",
                "Last success after the block",
                "First refusal",
                "Seconds to the first refusal",
                "Refusals",
                "Unblocked at",
                "By whom again",
                "Approved by",
                "First success afterwards",
                "Change ids",
            ),
            [_row(block) for block in blocks],
            "No block is recorded.",
        ),
        limits=(
            seen,
            *([f"{damaged} lines of the events were none, and are passed over."] if damaged else []),
            (
                "A refusal needs a request: without one, nothing shows when the block came into force. What the"
                " nodes had"
                " confirmed, the command itself said (`In force on ...`); it is not recorded."
            ),
            "An emergency stop of one node is a change only once the catalog has it.",
            "That AWS saw the same is in CloudTrail: `holdfast report reconciliation`.",
        ),
    )


def _blocks(changes: Iterable[Change]) -> Iterator[_Block]:
    """Each with the change that ended it, which comes later in the records."""
    found: list[_Block] = []
    open_: dict[str, _Block] = {}
    for change in changes:
        if change.outcome != APPLIED:
            continue
        for effect in change.effects:
            name = effect.subject.removeprefix(_KEYSTORE)
            match _blocked(effect):
                case True if name not in open_:
                    open_[name] = _Block(name, change)
                    found.append(open_[name])
                case False if name in open_:
                    open_.pop(name).ended = change
                case _:
                    pass
    yield from found


def _blocked(effect: Effect) -> bool | None:
    after = effect.after if effect.subject.startswith(_KEYSTORE) and isinstance(effect.after, dict) else {}
    blocked = after.get("blocked")
    return blocked if isinstance(blocked, bool) else None


def _row(block: _Block) -> tuple[Cell, ...]:
    began, ended = block.began, block.ended
    waited = None if block.first_refusal is None else round((block.first_refusal - began.time).total_seconds(), 3)
    return (
        block.keystore,
        began.time,
        _who(began),
        began.reason or NONE,
        began.ticket or NONE,
        block.last_success or "none seen",
        block.first_refusal or "none seen",
        "none seen" if waited is None else waited,
        block.refusals,
        "no unblock is recorded" if ended is None else ended.time,
        "" if ended is None else _who(ended),
        "" if ended is None else ", ".join(one.name for one in ended.approvals) or "nobody",
        "none seen" if block.first_success_after is None else block.first_success_after,
        began.id if ended is None else f"{began.id}, {ended.id}",
    )


# ---- recovery


def recovery(source: Source) -> Report:
    """Drills of standby HSMs and restored backups."""
    found = drilled(source.state)
    of: dict[int, list[tuple[str, str, datetime | None, str]]] = {}
    for one in found:
        said = f"{one.outcome}{f': {one.detail}' if one.detail else ''}"
        of.setdefault(one.generation_id, []).append((one.hsm, one.token_serial, one.opened_at, said))
    rows: list[tuple[Cell, ...]] = []
    for row in source.state.keys(None):
        if row.state in {GenerationState.PLANNED, GenerationState.DESTROYED}:
            continue
        name = f"{row.keystore}/{row.external_key_id} generation {row.generation}"
        for hsm, serial, opened, said in of.get(row.generation_id, ()):
            rows.append((name, row.hsm, hsm, serial, said, "never" if opened is None else opened))
        if row.generation_id not in of:
            rows.append((name, row.hsm, "NO DRILL", "", "", "never"))
    return source.report(
        "recovery",
        "Recovery drills",
        "Which generations has another HSM opened than the one that serves, and when?",
        Table(
            "drills",
            "Drills, the oldest first",
            ("Time", "HSM", "Token serial", "Opened", "Not opened", "Change id"),
            [
                (one.time, one.hsm, one.token_serial, one.opened, one.failed, one.change_id)
                for one in drills(source.state)
            ],
            "There was no drill: `holdfast key drill --hsm NAME` makes one.",
        ),
        Table(
            "generations",
            "Generations",
            ("Key and generation", "Served from", "Drilled in", "Token serial", "Last outcome", "Last opened"),
            rows,
            "There is no key.",
        ),
        limits=(
            (
                "A drill opens each generation's canary: it shows that the HSM has the same key. It does not"
                " show that"
                " the whole service starts on that HSM, nor how long that takes."
            ),
            "From where the restored HSM got its keys, and who took part, is not known to Holdfast.",
        ),
    )


# ---- reconciliation


def reconciliation(source: Source, result: Reconciled, *, lost: int, of: str) -> Report:
    """Our audit logs against CloudTrail. `of` says which files were compared."""
    kinds = {
        "ALARM: AWS says success, and no HSM did it": result.never_done,
        "ours only": result.ours_only,
        "mismatch": result.mismatched,
    }
    counts: list[tuple[Cell, ...]] = [
        ("matched", result.matched),
        *((word, found.count) for word, found in kinds.items()),
        ("refused by KMS", sum(result.refused.values())),
        ("done too late for KMS", sum(result.late.values())),
        ("outside of the trail's time", result.outside_trail),
        ("outside of the logs' time", result.outside_log),
        ("lost events in the logs", lost),
    ]
    return source.report(
        "reconciliation",
        "Reconciliation with CloudTrail",
        "Does AWS's log of KMS say the same as the audit logs of the nodes?",
        Table("counts", "Requests", ("What", "How many"), counts, ""),
        Table(
            "differences",
            "Differences",
            ("Kind", "Time", "Request id", "What"),
            [*chain.from_iterable(_differences(word, found) for word, found in kinds.items())],
            "Both sides agree.",
        ),
        limits=(
            of,
            "Where a log has lost events, a success that the HSM seems not to have had may be one of them.",
            "Only the first differences of each kind are named: `holdfast audit reconcile --json` has the counts.",
            "Requests that KMS refused itself never come here, and are in no audit log.",
        ),
    )


def _differences(word: str, found: Differences) -> Iterator[tuple[Cell, ...]]:
    for one in found.first:
        yield word, one.time, one.request_id, one.text
