"""`holdfast audit`: verify an audit log, and prove single records of it, from its files alone; the key that signs."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from holdfast.audit.checkpoint import SignedCheckpoint, open_checkpoint
from holdfast.audit.faults import Finding, LogDamaged
from holdfast.audit.proof import Proof
from holdfast.audit.records import Exhibit
from holdfast.audit.search import SignedLog
from holdfast.audit.verify import Verified, verify_log
from holdfast.cli import output
from holdfast.cli.audit_arguments import KeyOption, log_reader, small_file, verifier_keys
from holdfast.cli.cosigner import witness
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration
from holdfast.cli.output import printable
from holdfast.cli.reconcile import reconcile
from holdfast.cli.tables import fields
from holdfast.control.audit_key import create_audit_key
from holdfast.control.audit_key import verifier_keys as node_keys
from holdfast.control.errors import Conflict, NotFound
from holdfast.control.files import PUBLIC_MODE, create_file

app = typer.Typer(help="The audit log: verify it, prove what it says.", no_args_is_help=True)
key_app = typer.Typer(help="The key that signs this node's audit log.", no_args_is_help=True)
app.add_typer(key_app, name="key")
app.command()(reconcile)
app.command()(witness)

_PLACE = re.compile(r"entry:(?P<index>[0-9]{1,18})(?::(?P<line>[0-9]{1,9}))?")

LogArgument = Annotated[Path, typer.Argument(help="The directory of the log, or a copy of it.", show_default=False)]
WitnessOption = Annotated[
    list[str] | None,
    typer.Option("--witness", help="A verifier key of a witness that must have cosigned. Repeatable."),
]


@app.callback()
def audit() -> None:
    """The audit log: verify it, prove what it says."""


@app.command()
def verify(
    log: LogArgument,
    *,
    key: KeyOption,
    witness: WitnessOption = None,
    earlier: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint of the log that was kept elsewhere. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a whole log against its checkpoint.

    Every entry, tile and segment must be what was signed. Nothing but these files and the keys is used.
    The exit code is 0 where all is as it was signed, else 15.
    """
    keys, witnesses = verifier_keys(key), verifier_keys(witness or [])
    kept = [open_checkpoint(small_file(path), keys) for path in earlier or []]
    try:
        verified = verify_log(log_reader(log), keys, witnesses=witnesses, earlier=kept)
    except LogDamaged as damage:
        _tell_damage(damage.findings, as_json=as_json)
        raise typer.Exit(ExitCode.EVIDENCE) from None
    facts = _facts(verified)
    if as_json:
        output.json({"verified": True, **facts, "findings": []})
        return
    output.say("The log is what was signed.")
    by = ", ".join(f"{printable(key.name)}+{key.key_id.hex()}" for key in verified.signed.signed_by)
    witnessed = _witnessed(verified.signed) or None
    fields({**facts, "signed_by": by, "witnessed": witnessed, "records": _counts(verified.records)})
    if not kept:
        output.say("Whether an older state was put back, a checkpoint that you kept shows: --earlier FILE.")


@app.command()
def prove(
    log: LogArgument,
    what: Annotated[
        str,
        typer.Argument(
            help="The id of a change, a kmsRequestId, entry:INDEX, or entry:INDEX:LINE for an event of a segment.",
            show_default=False,
        ),
    ],
    *,
    to: Annotated[Path | None, typer.Option("--output", help="The file to write. Default: standard output.")] = None,
) -> None:
    """Make a proof of one record; of a change, the one that says what became of it.

    It can be checked without the log: it is a C2SP .tlog-proof file, and quotes the record.
    """
    signed = SignedLog(log_reader(log))
    place = _PLACE.fullmatch(what)
    if place is not None:
        places = [(int(place["index"]), None if place["line"] is None else int(place["line"]))]
    else:
        places = list(signed.find(what))
    if not places:
        raise NotFound(
            f"no change and no event of the {signed.size} signed entries is named {printable(what)}",
            hint="What was written after the last checkpoint is found after the next. Is this the right node's log?",
        )
    several = ", ".join(f"entry:{index}" + ("" if line is None else f":{line}") for index, line in places)
    if len(places) > 1 and all(line is None for _, line in places):
        output.say(f"The change has {len(places)} records: {several}. The last one, which says what became of it:")
        places = places[-1:]
    if len(places) > 1:
        raise Conflict(f"{len(places)} records are named so", hint=f"Name one of them by its place: {several}.")
    try:
        raw = signed.prove(*places[0]).encode()
    except ValueError as error:
        raise NotFound(str(error), hint="`holdfast audit verify` shows how many entries there are.") from None
    if to is None:
        output.data(raw.decode().removesuffix("\n"))
    else:
        create_file(to, raw, mode=PUBLIC_MODE)
        output.say(f"{to} proves entry {places[0][0]} (of 0 to {signed.size - 1}).")


@app.command("check-proof")
def check_proof(
    proof: Annotated[Path, typer.Argument(help="The .tlog-proof file.", show_default=False)],
    *,
    key: KeyOption,
    witness: WitnessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a proof, and show its record.

    The exit code is 0 where it holds, else 15.
    """
    parsed = Proof.parse(small_file(proof))
    exhibit = Exhibit.parse(parsed.extra)
    signed = parsed.check(exhibit.entry.encode(), verifier_keys(key), witnesses=verifier_keys(witness or []))
    record = exhibit.record()
    checkpoint = signed.checkpoint
    shown = {
        "log": checkpoint.origin,
        "index": parsed.index,
        "size": checkpoint.size,
        "signed_by": list(map(str, signed.signed_by)),
        "witnessed": _times(signed),
        "record": msgspec.json.decode(exhibit.entry),
        "event": None if exhibit.event is None else _json(exhibit.event),
    }
    if as_json:
        output.json({"proven": True, **shown})
        return
    output.say(
        f"Proven: entry {parsed.index} (of 0 to {checkpoint.size - 1}) of the log {printable(checkpoint.origin)}."
    )
    if signed.witnessed:
        output.say(f"Cosigned by {_witnessed(signed)}.")
    output.json(shown["record"] if exhibit.event is None else shown["event"])
    if exhibit.event is not None:
        output.say(f"It is event {exhibit.event_index} of the segment of {msgspec.to_builtins(record)['time']}.")


@key_app.callback()
def audit_key() -> None:
    """The key that signs this node's audit log."""


@key_app.command("create")
def create_key(*, config: ConfigOption = None) -> None:
    """Make the key that [audit] names, in its HSM, and print its verifier keys.

    It is a pair on P-256 that only signs and never leaves the HSM.
    """
    keys = create_audit_key(read_configuration(config))
    output.say("The key is made. Give your auditors what follows, one line for each log, by a way that they trust:")
    output.data("\n".join(map(str, keys)))


@key_app.command("show")
def show_key(*, config: ConfigOption = None) -> None:
    """Print the verifier keys of this host's audit logs, a line each.

    Auditors verify the logs with them. They are public, and must come to auditors by a way that they trust.
    """
    output.data("\n".join(map(str, node_keys(read_configuration(config)))))


def _facts(verified: Verified) -> dict[str, Any]:
    checkpoint = verified.signed.checkpoint
    return {
        "log": printable(checkpoint.origin),
        "entries": checkpoint.size,
        "root": checkpoint.root.hex(),
        "signed_by": list(map(str, verified.signed.signed_by)),
        "witnessed": _times(verified.signed),
        "records": dict(verified.records),
        "events": verified.events,
        "events_lost": verified.lost,
        "streams_cut": verified.cut,
        "pruned": verified.pruned,
    }


def _tell_damage(findings: tuple[Finding, ...], *, as_json: bool) -> None:
    if as_json:
        output.json({"verified": False, "findings": findings})
        return
    for finding in findings:
        output.data(f"{finding.kind}: {finding.text}")
    output.error(
        "the log is not what was signed",
        hint="Keep the files as they are, and verify a copy of the log that was made elsewhere.",
    )


def _times(signed: SignedCheckpoint) -> dict[str, datetime]:
    return {name: datetime.fromtimestamp(seconds, UTC) for name, seconds in signed.witnessed.items()}


def _witnessed(signed: SignedCheckpoint) -> str:
    return ", ".join(f"{printable(name)} at {time:%Y-%m-%d %H:%M:%S} UTC" for name, time in _times(signed).items())


def _counts(records: dict[str, int]) -> str:
    return ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(records.items())) or "none"


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
