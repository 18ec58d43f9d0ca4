"""`holdfast authorization`: what the policies decide, without a proxy, an HSM or KMS."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration
from holdfast.cli.output import printable
from holdfast.cli.tables import table
from holdfast.config.policies import parse_policies, read_policies
from holdfast.control.errors import Invalid
from holdfast.doctor.replay import Change, replay
from holdfast.policy.facts import Facts
from holdfast.policy.policies import Decision
from holdfast.reading import open_file

app = typer.Typer(help="Cedar policies: who may use which key.", no_args_is_help=True)


class Asked(StrEnum):
    """The operations that policies decide on: all but GetHealthStatus."""

    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"
    GET_KEY_METADATA = "GetKeyMetadata"


@app.callback()
def authorization() -> None:
    """Cedar policies: who may use which key."""


def _option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


PoliciesOption = Annotated[Path | None, _option("The policy file. Default: that of the configuration.")]


@app.command("test")
def decide_once(
    *,
    keystore: Annotated[str, _option("The keystore's name.")],
    key: Annotated[str, _option("The external key id.")],
    principal: Annotated[str, _option("awsPrincipalArn: an ARN, ec2.amazonaws.com, or 'AWS Internal'.")],
    operation: Annotated[Asked, typer.Option(help="What KMS asks the proxy for.")] = Asked.DECRYPT,
    kms_operation: Annotated[str | None, _option("What KMS was asked for, such as GenerateDataKey.")] = None,
    kms_key_arn: Annotated[str | None, _option("The KMS key. Needed for Encrypt and Decrypt.")] = None,
    kms_via_service: Annotated[str | None, _option("As in s3.eu-west-1.amazonaws.com.")] = None,
    aws_source_vpc: Annotated[str | None, _option("The caller's VPC.")] = None,
    aws_source_vpce: Annotated[str | None, _option("The caller's VPC endpoint.")] = None,
    policies: PoliciesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the policies decide on a request, and which policy decides.

    Nothing is asked but the file: neither whether the key exists, nor KMS's key policy.
    The exit code is 0 for allow, 13 for deny.
    """
    if operation is not Asked.GET_KEY_METADATA and kms_key_arn is None:
        raise Invalid(f"KMS names the KMS key in every {operation}", hint="Add --kms-key-arn ARN.")
    asked = kms_operation or ("DescribeKey" if operation is Asked.GET_KEY_METADATA else operation.value)
    facts = Facts(
        operation.value,
        keystore,
        key,
        principal,
        asked,
        kms_key_arn,
        kms_via_service,
        aws_source_vpc,
        aws_source_vpce,
    )
    decision = parse_policies(read_policies(policies or _configured(config))).decide(facts)
    _tell(decision, as_json=as_json)
    raise typer.Exit(ExitCode.OK if decision.denial is None else ExitCode.DENIED)


@app.command("replay")
def decide_again(
    events: Annotated[Path, typer.Argument(help="An event log; - for standard input.", show_default=False)],
    *,
    policies: PoliciesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide the requests of an event log again, and show those that the policies would decide differently.

    The exit code is 13 if a request that was permitted would be denied, else 0.
    """
    found = parse_policies(read_policies(policies or _configured(config)))
    try:
        with sys.stdin.buffer if events == Path("-") else open_file(events, pipe=True) as lines:
            done = replay(iter(lambda: lines.readline(_LONGEST_LINE), b""), found)
    except OSError as error:
        raise Invalid(f"{events} cannot be read: {error.strerror}", hint="Name the file that [log] names.") from None
    if done.unread and not done.read:
        raise Invalid(f"{events} has no event in it", hint="Name the file that [log] names.")
    if done.unread:
        output.warning(f"lines that are not events, ignored: {done.unread}")
    rows = [_row(change) for change in done.changes]
    if as_json:
        output.json({"requests": done.requests, "changes": rows})
    else:
        # Of the rest, what distinguishes the rows: else two of them could look the same.
        more = {name: field for name, field in _MORE.items() if len({row[field] for row in rows}) > 1}
        table(
            ("WOULD", "REQUESTS", "OPERATION", "KEY", "PRINCIPAL", *more, "WHY"),
            [
                (
                    row["decision"],
                    str(row["requests"]),
                    row["operation"],
                    _short(f"{row['keystore']}/{row['external_key_id']}"),
                    _short(row["aws_principal_arn"]),
                    *(_short(row[field] or "-") for field in more.values()),
                    row["detail"] or f"permitted by {', '.join(row['policies'])}",
                )
                for row in rows
            ],
            empty=f"The policies decide each request as it was decided ({done.requests}).",
        )
    denies = any(change.decision.denial is not None for change in done.changes)
    raise typer.Exit(ExitCode.DENIED if denies else ExitCode.OK)


_MORE = {
    "KMS OPERATION": "kms_operation",
    "SERVICE": "kms_via_service",
    "VPC": "aws_source_vpc",
    "ENDPOINT": "aws_source_vpce",
    "KMS KEY": "kms_key_arn",
}
"""Columns of a replay that are shown only if their values differ."""
_LONGEST_LINE = 1_048_576
"""Bytes. A longer line is no event."""
_LONGEST_CELL = 100
"""Characters. A principal may have 2,048; `--json` has all of it."""


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST_CELL else f"{shown[: _LONGEST_CELL - 3]}..."


def _row(change: Change) -> dict[str, Any]:
    decision = change.decision
    return {
        "decision": _verdict(decision),
        "requests": change.count,
        "policies": decision.policies,
        "detail": decision.denial,
        **change.facts._asdict(),
    }


def _verdict(decision: Decision) -> str:
    return "allow" if decision.denial is None else "deny"


def _tell(decision: Decision, *, as_json: bool) -> None:
    verdict = _verdict(decision)
    if as_json:
        output.json({"decision": verdict, "policies": decision.policies, "detail": decision.denial})
    else:
        why = decision.denial or f"permitted by {', '.join(decision.policies)}"
        output.data(f"{verdict}: {why}")


def _configured(config: Path | None) -> Path:
    authorization = read_configuration(config).authorization
    if authorization is None:
        raise Invalid(
            "the configuration has no [authorization]: the proxy does whatever KMS's key policies allow",
            hint="Name a file with --policies FILE, or in the configuration.",
        )
    return authorization.policies
