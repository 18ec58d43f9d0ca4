"""Decides recorded requests again: what policies would change, before they are used."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from holdfast.policy.facts import Facts
from holdfast.policy.policies import Decision, Policies
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation


class _Line(msgspec.Struct, rename="camel"):
    """The fields of an event that policies look at. A request that was not parsed lacks some."""

    operation: str | None = None
    keystore: str | None = None
    external_key_id: str | None = None
    aws_principal_arn: str | None = None
    kms_operation: str | None = None
    kms_key_arn: str | None = None
    kms_via_service: str | None = None
    aws_source_vpc: str | None = None
    aws_source_vpce: str | None = None
    error_name: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Requests, `count` of them, with equal facts, that would be decided otherwise than they were."""

    facts: Facts
    count: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Replay:
    """Of the `read` events `requests` were decided again; `unread` lines are not events."""

    read: int
    requests: int
    unread: int
    changes: tuple[Change, ...]


def replay(lines: Iterable[bytes], policies: Policies) -> Replay:
    """The requests of an event log that policies decide on, decided by these; the most frequent change first."""
    recorded: Counter[tuple[Facts, bool]] = Counter()
    read = unread = 0
    for line in lines:
        try:
            event = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            unread += 1
            continue
        read += 1
        facts = _facts(event)
        if facts is not None:
            recorded[facts, event.error_name == ErrorName.ACCESS_DENIED] += 1
    changes = []
    for (facts, was_denied), count in recorded.most_common():
        decision = policies.decide(facts)
        if was_denied != (decision.denial is not None):
            changes.append(Change(facts, count, decision))
    return Replay(read, recorded.total(), unread, tuple(changes))


def _facts(event: _Line) -> Facts | None:
    """None if policies were never asked: for GetHealthStatus, and where the request was refused before."""
    if (
        event.operation in (None, Operation.GET_HEALTH_STATUS)
        or event.keystore is None
        or event.external_key_id is None
        or event.aws_principal_arn is None
        or event.kms_operation is None
    ):
        return None
    return Facts(
        str(event.operation),
        event.keystore,
        event.external_key_id,
        event.aws_principal_arn,
        event.kms_operation,
        event.kms_key_arn,
        event.kms_via_service,
        event.aws_source_vpc,
        event.aws_source_vpce,
    )
