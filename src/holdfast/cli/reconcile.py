"""`holdfast audit reconcile`: our audit logs against CloudTrail."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from holdfast.audit.faults import Malformed
from holdfast.audit.reconcile import Differences, Reconciled, Reconciliation, trail_records
from holdfast.audit.search import SignedLog
from holdfast.audit.verify import verify_log
from holdfast.cli import output
from holdfast.cli.audit_arguments import KeyOption, log_reader, verifier_keys
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import JsonOption
from holdfast.cli.output import printable
from holdfast.cli.tables import fields
from holdfast.control.errors import Invalid
from holdfast.reading import open_file

_LARGEST = 1 << 30
"""Bytes of one file, uncompressed. CloudTrail's have some megabytes."""


def reconcile(
    logs: Annotated[
        list[Path], typer.Argument(help="The logs of all nodes of the key store, or copies.", show_default=False)
    ],
    *,
    cloudtrail: Annotated[
        list[Path],
        typer.Option(help="A file of CloudTrail (.json, .json.gz), or a directory of them. Repeatable."),
    ],
    key: KeyOption,
    as_json: JsonOption = False,
) -> None:
    """Compare the audit logs of all nodes with CloudTrail, request by request.

    Takes the files of a trail's S3 bucket, the output of `aws cloudtrail lookup-events`, and events of EventBridge.
    The exit code is 0 where both sides agree, else 15. The alarm is an AWS success that the HSM never did.
    """
    result, lost = compared(logs, cloudtrail, key)
    _tell(result, lost=lost, as_json=as_json)


def compared(logs: list[Path], cloudtrail: list[Path], key: list[str]) -> tuple[Reconciled, int]:
    """What the logs and the trail say of each other, and how many events the logs have lost. Raises Invalid."""
    keys = verifier_keys(key)
    reconciliation = Reconciliation()
    for path in _files(cloudtrail):
        try:
            for record in trail_records(_content(path)):
                reconciliation.take_trail(record)
        except Malformed as error:
            raise Invalid(
                f"{path}: {error.message}", hint="Name files with `Records` or `Events`, as CloudTrail writes them."
            ) from None
    lost = 0
    for log in logs:
        read = log_reader(log)
        verified = verify_log(read, keys)
        lost += verified.lost + verified.cut
        for line in SignedLog(read).events():
            reconciliation.take_event(line)
    return reconciliation.result(), lost


def _tell(result: Reconciled, *, lost: int, as_json: bool) -> None:
    if as_json:
        output.json({"agrees": result.agrees, **_facts(result), "lost": lost, **_differences(result)})
    else:
        fields({**_facts(result), "lost_in_log": lost})
        for word, found in _kinds(result).items():
            for difference in found.first:
                output.data(
                    f"{word}: {printable(difference.request_id)} {difference.time:%Y-%m-%dT%H:%M:%SZ}"
                    f" {printable(difference.text)}"
                )
            if found.count > len(found.first):
                output.data(f"{word}: and {found.count - len(found.first)} more")
    if result.never_done.count:
        output.error(
            f"ALARM: {result.never_done.count} successes of AWS that the HSM never had",
            hint="Were the logs of all nodes given, and did one lose events? If so, look there first. Else block the"
            " key store (`holdfast keystore block`), and ask AWS: it cannot open a ciphertext of this key alone.",
        )
    elif not result.agrees:
        output.error(
            "the logs and CloudTrail differ",
            hint="`ours only` without a gap in the trail means that somebody else than KMS has a credential:"
            " `holdfast credential issue` a new one, and retire the old.",
        )
    else:
        output.say("Both sides agree.")
    if not result.agrees:
        raise typer.Exit(ExitCode.EVIDENCE)


def _facts(result: Reconciled) -> dict[str, object]:
    return {
        "matched": result.matched,
        "never_done": result.never_done.count,
        "ours_only": result.ours_only.count,
        "mismatched": result.mismatched.count,
        "refused_by_kms": sum(result.refused.values()),
        "done_too_late": sum(result.late.values()),
        "outside_trail": result.outside_trail,
        "outside_log": result.outside_log,
    }


def _kinds(result: Reconciled) -> dict[str, Differences]:
    return {"ALARM": result.never_done, "ours only": result.ours_only, "mismatch": result.mismatched}


def _differences(result: Reconciled) -> dict[str, object]:
    return {
        "errors_of_kms": dict(result.refused + result.late),
        "differences": {word: found.first for word, found in _kinds(result).items()},
    }


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.name.endswith((".json", ".json.gz")))
            if not found:
                raise Invalid(
                    f"{path} has no file .json or .json.gz", hint="Name the directory of the trail's files."
                )
            yield from found
        else:
            yield path


def _content(path: Path) -> bytes:
    try:
        with open_file(path, pipe=True) as file:
            raw = (gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file).read(_LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Malformed(f"it is not whole: {error}") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint="Name a file that exists.") from None
    if len(raw) > _LARGEST:
        raise Malformed(f"it has more than {_LARGEST} bytes")
    return raw
