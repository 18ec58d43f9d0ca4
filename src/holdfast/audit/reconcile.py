"""Our events against CloudTrail's: what the HSM did, and what AWS says was done.

Both have the id of the KMS request: `kmsRequestId` here, `requestID` there. It is not one to one. After a time-out
KMS asks again, once, with the same id. ReEncrypt is two calls here. A request that KMS refuses never comes here.
Polls for health and metadata have no record there. So what is compared is whether an Encrypt or Decrypt was *done*.

Time bounds every judgement: what one side did while the other was not looking yet, or has not delivered yet, is not
missing. CloudTrail delivers within some 15 minutes, and not in order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from holdfast.audit.faults import Malformed

DELIVERY = timedelta(minutes=15)
"""How much later than another a CloudTrail record may come."""
MAX_SHOWN = 100
"""Differences of one kind that are kept; all are counted."""
_KMS = "kms.amazonaws.com"
_EXPECTED = {"Encrypt": {"Encrypt"}, "Decrypt": {"Decrypt"}, "ReEncrypt": {"Encrypt", "Decrypt"}}
_DATA_KEY = "GenerateDataKey"
_MOST_ATTEMPTS = 2
_WORK = ("Encrypt", "Decrypt")

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Resource(msgspec.Struct):
    ARN: str = ""


class _Additional(msgspec.Struct):
    xksKeyId: str = ""  # noqa: N815 (CloudTrail's name)


class TrailRecord(msgspec.Struct, rename="camel"):
    """What is looked at of a CloudTrail record."""

    event_time: Time
    event_source: str
    event_name: str
    request_id: Annotated[str, msgspec.Meta(max_length=256)] = msgspec.field(name="requestID", default="")
    error_code: str = ""
    resources: list[_Resource] | None = None
    additional_event_data: _Additional | None = None

    @property
    def key(self) -> str:
        """The external key's id; empty for a call that is not of an external key."""
        return "" if self.additional_event_data is None else self.additional_event_data.xksKeyId


class OurEvent(msgspec.Struct, rename="camel"):
    """What is looked at of a line of our log."""

    timestamp: Time
    decision: str = ""
    operation: str = ""
    kms_request_id: str = ""
    external_key_id: str = ""
    kms_key_arn: str = ""
    kms_operation: str = ""


class _LookedUp(msgspec.Struct):
    CloudTrailEvent: str


class _File(msgspec.Struct):
    """A file of the bucket, the output of `lookup-events`, or an event of EventBridge."""

    Records: list[TrailRecord] = []
    Events: list[_LookedUp] = []
    detail: TrailRecord | None = None


def trail_records(raw: bytes) -> Iterator[TrailRecord]:
    """The KMS calls on external keys in a file of CloudTrail, uncompressed. Raises Malformed."""
    try:
        file = msgspec.json.decode(raw, type=_File)
        looked_up = (msgspec.json.decode(event.CloudTrailEvent, type=TrailRecord) for event in file.Events)
        for record in (*file.Records, *looked_up, *([] if file.detail is None else [file.detail])):
            if record.event_source == _KMS and record.key and record.request_id:
                yield record
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"it is not a file of CloudTrail records: {error}") from None


@dataclass(slots=True)
class _Call:
    """One KMS request as CloudTrail has it: several records where two accounts see it, or for a ReEncrypt."""

    time: datetime
    names: set[str] = field(default_factory=set)
    arns: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    error: str = ""
    seen: bool = False
    done: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Difference:
    """One request on which both sides do not agree."""

    request_id: str
    time: datetime
    text: str


@dataclass(slots=True)
class Differences:
    """Those of one kind: the first ones, and how many there are."""

    count: int = 0
    first: list[Difference] = field(default_factory=list)

    def add(self, difference: Difference) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < MAX_SHOWN:
            self.first.append(difference)


@dataclass(slots=True)
class Reconciled:
    """The result, in numbers of KMS requests.

    `never_done`: AWS tells a success that the HSM never had: the alarm. `ours_only`: the HSM did it, and CloudTrail
    has no record: the credential was used by somebody else than KMS, or a part of the trail is missing. `mismatched`:
    both have it, about another key or operation, or it was done more often than KMS asks. `refused`: AWS has an error
    by this code, and nothing was done here. `late`: the HSM did it, and KMS gave up. `outside_trail`, `outside_log`:
    not judged, as the other side does not cover the time.
    """

    matched: int = 0
    never_done: Differences = field(default_factory=Differences)
    ours_only: Differences = field(default_factory=Differences)
    mismatched: Differences = field(default_factory=Differences)
    refused: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    outside_trail: int = 0
    outside_log: int = 0

    @property
    def agrees(self) -> bool:
        """Whether nothing asks for an explanation."""
        return not (self.never_done.count or self.ours_only.count or self.mismatched.count)


class Reconciliation:
    """Give it all of the trail, then all of the events, then take the result. Holds the trail's calls in memory."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._first_call: datetime | None = None
        self._last_call: datetime | None = None
        self._first_event: datetime | None = None
        self._last_event: datetime | None = None
        self._result = Reconciled()

    def take_trail(self, record: TrailRecord) -> None:
        """One record; the same again changes nothing."""
        call = self._calls.setdefault(record.request_id, _Call(record.event_time, error=record.error_code))
        self._first_call = min(self._first_call or record.event_time, record.event_time)
        self._last_call = max(self._last_call or record.event_time, record.event_time)
        call.names.add(record.event_name)
        call.keys.add(record.key)
        call.arns.update(resource.ARN for resource in record.resources or () if ":key/" in resource.ARN)
        call.error = call.error and record.error_code  # a success for one of them was done

    def take_event(self, line: bytes) -> None:
        """One line of our log; what is not an Encrypt or Decrypt of KMS is passed over."""
        try:
            event = msgspec.json.decode(line, type=OurEvent)
        except msgspec.MsgspecError:
            return
        self._first_event = min(self._first_event or event.timestamp, event.timestamp)
        self._last_event = max(self._last_event or event.timestamp, event.timestamp)
        if event.operation not in _WORK or not event.kms_request_id:
            return
        call = self._calls.get(event.kms_request_id)
        if call is None:
            if event.decision == "allow":
                self._miss(event)
            return
        call.seen = True
        if event.decision == "allow":
            call.done[event.operation] += 1
            for text in _disagreements(event, call):
                self._result.mismatched.add(Difference(event.kms_request_id, event.timestamp, text))

    def result(self) -> Reconciled:
        """What came out."""
        result = self._result
        for request_id, call in self._calls.items():
            if call.done:
                result.matched += not call.error
                if call.error:
                    result.late[call.error] += 1
            elif call.error:
                result.refused[call.error] += 1
            elif not self._covered(call.time):
                result.outside_log += 1
            else:
                why = "every attempt failed here" if call.seen else "no such request came here"
                text = f"{_names(call.names)} of {_names(call.keys)} succeeded for AWS, and {why}"
                result.never_done.add(Difference(request_id, call.time, text))
        return result

    def _miss(self, event: OurEvent) -> None:
        first, last = self._first_call, self._last_call
        if first is None or last is None or not first <= event.timestamp <= last - DELIVERY:
            self._result.outside_trail += 1
            return
        text = f"{event.operation} with {event.external_key_id} was done, and CloudTrail has no record of it"
        self._result.ours_only.add(Difference(event.kms_request_id, event.timestamp, text))

    def _covered(self, time: datetime) -> bool:
        first, last = self._first_event, self._last_event
        # CloudTrail's times have whole seconds.
        second = timedelta(seconds=1)
        return first is not None and last is not None and first - second <= time <= last


def _disagreements(event: OurEvent, call: _Call) -> Iterator[str]:
    if event.external_key_id not in call.keys:
        yield f"the external key is {event.external_key_id} here and {_names(call.keys)} in CloudTrail"
    if event.kms_key_arn and call.arns and event.kms_key_arn not in call.arns:
        yield f"the KMS key is {event.kms_key_arn} here and {_names(call.arns)} in CloudTrail"
    expected = set().union(*(_operations(name) for name in call.names))
    if call.done[event.operation] == _MOST_ATTEMPTS + 1:
        yield f"{event.operation} was done more than {_MOST_ATTEMPTS} times for one request"
    if expected and event.operation not in expected:
        yield f"the operation is {event.operation} here and {_names(call.names)} in CloudTrail"


def _operations(name: str) -> set[str]:
    return {"Encrypt"} if name.startswith(_DATA_KEY) else _EXPECTED.get(name, set())


def _names(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
