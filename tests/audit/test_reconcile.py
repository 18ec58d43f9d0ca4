"""What our events and CloudTrail's records say together: each class, and that time bounds the judgement."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.audit.faults import Malformed
from holdfast.audit.reconcile import DELIVERY, Reconciled, Reconciliation, trail_records

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def record(request_id: str, name: str = "Decrypt", *, minutes: float = 0, **changes: Any) -> dict[str, Any]:
    """A CloudTrail record as the KMS Developer Guide shows it for an external key store."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "IAMUser",
            "arn": "arn:aws:iam::111122223333:user/Alice",
            "accountId": "111122223333",
        },
        "eventTime": (NOON + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "kms.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-central-1",
        "requestParameters": {"encryptionAlgorithm": "SYMMETRIC_DEFAULT", "encryptionContext": {"a": "b"}},
        "responseElements": None,
        "additionalEventData": {"customKeyStoreId": "cks-1234567890abcdef0", "xksKeyId": "key-1"},
        "requestID": request_id,
        "eventID": f"event-{request_id}",
        "resources": [{"accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": ARN}],
        **changes,
    }


def event(request_id: str, operation: str = "Decrypt", *, minutes: float = 0, **changes: Any) -> dict[str, Any]:
    """A line of our log."""
    return {
        "timestamp": (NOON + timedelta(minutes=minutes)).isoformat(),
        "decision": "allow",
        "operation": operation,
        "kmsRequestId": request_id,
        "externalKeyId": "key-1",
        "kmsKeyArn": ARN,
        **changes,
    }


def frame(kind: str, minutes: float) -> dict[str, Any]:
    """A request that both sides have, so that both cover its time."""
    return {"record": record, "event": event}[kind](f"frame {minutes}", minutes=minutes)


def reconciled(records: list[dict[str, Any]], events: list[dict[str, Any]]) -> Reconciled:
    """With both sides looking from an hour before noon to an hour after it."""
    work = Reconciliation()
    raw = json.dumps({"Records": [frame("record", -60), *records, frame("record", 60)]}).encode()
    for found in trail_records(raw):
        work.take_trail(found)
    for line in (frame("event", -60), *events, frame("event", 60)):
        work.take_event(json.dumps(line).encode())
    result = work.result()
    assert result.matched >= 2
    result.matched -= 2
    return result


def test_a_call_that_both_have_is_matched() -> None:
    result = reconciled([record("1")], [event("1")])
    assert (result.matched, result.agrees) == (1, True)


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("GenerateDataKey", ["Encrypt"]),
        ("GenerateDataKeyPairWithoutPlaintext", ["Encrypt"]),
        ("Encrypt", ["Encrypt"]),
        ("ReEncrypt", ["Decrypt", "Encrypt"]),
        ("Decrypt", ["Decrypt", "Decrypt"]),
    ],
)
def test_one_call_of_kms_is_one_or_two_here(name: str, operations: list[str]) -> None:
    result = reconciled([record("1", name)], [event("1", operation) for operation in operations])
    assert (result.matched, result.agrees) == (1, True)


def test_a_success_of_aws_that_never_came_here_is_the_alarm() -> None:
    result = reconciled([record("1")], [])
    assert (result.never_done.count, result.agrees) == (1, False)
    (difference,) = result.never_done.first
    assert (difference.request_id, difference.time) == ("1", NOON)
    assert difference.text == "Decrypt of key-1 succeeded for AWS, and no such request came here"


def test_a_success_of_aws_that_only_failed_here_is_the_alarm_too() -> None:
    result = reconciled([record("1")], [event("1", decision="deny"), event("1", decision="fail")])
    assert [found.text for found in result.never_done.first] == [
        "Decrypt of key-1 succeeded for AWS, and every attempt failed here"
    ]


def test_a_request_that_kms_asked_again_was_done_if_one_attempt_was() -> None:
    assert reconciled([record("1")], [event("1", decision="fail"), event("1")]).agrees


def test_what_kms_refused_or_could_not_get_is_explained_by_its_error() -> None:
    records = [
        record(name, errorCode=error) for name, error in (("1", "AccessDenied"), ("2", "KMSInvalidStateException"))
    ]
    result = reconciled(records, [event("2", decision="deny")])
    assert (result.refused, result.agrees) == ({"AccessDenied": 1, "KMSInvalidStateException": 1}, True)


def test_an_answer_that_came_too_late_is_told_apart() -> None:
    result = reconciled([record("1", errorCode="DependencyTimeoutException")], [event("1")])
    assert (result.late, result.matched, result.agrees) == ({"DependencyTimeoutException": 1}, 0, True)


def test_what_was_done_here_without_a_record_of_aws_is_told() -> None:
    result = reconciled([], [event("forged"), event("refused", decision="deny")])
    assert [found.request_id for found in result.ours_only.first] == ["forged"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"externalKeyId": "key-2"}, "the external key is key-2 here and key-1"),
        ({"kmsKeyArn": ARN.replace("1111", "9999")}, "the KMS key is arn:aws:kms:eu-central-1:9999"),
        ({"operation": "Encrypt"}, "the operation is Encrypt here and Decrypt"),
    ],
)
def test_a_call_that_is_another_one_here_is_a_mismatch(changes: dict[str, str], word: str) -> None:
    result = reconciled([record("1")], [{**event("1"), **changes}])
    assert len(result.mismatched.first) == 1
    assert result.mismatched.first[0].text.startswith(word)


def test_an_id_that_is_used_again_and_again_is_a_mismatch() -> None:
    """Whoever has stolen a credential can take the id of a request that is in the trail."""
    result = reconciled([record("1")], [event("1")] * 5)
    assert (result.mismatched.count, result.agrees) == (1, False)


def test_the_copies_of_one_record_in_two_accounts_count_once() -> None:
    other = {"accountId": "444455556666", "type": "AWS::KMS::Key", "ARN": ARN}
    result = reconciled([record("1"), record("1", eventID="copy", resources=[other])], [event("1")])
    assert (result.matched, result.agrees) == (1, True)


def test_what_the_other_side_does_not_cover_is_not_judged() -> None:
    late = 60 - DELIVERY.total_seconds() / 60 + 1
    result = reconciled([record("a", minutes=-61), record("b", minutes=61)], [])
    assert (result.outside_log, result.agrees) == (2, True)
    result = reconciled([], [event("a", minutes=-61), event("b", minutes=late)])
    assert (result.outside_trail, result.agrees) == (2, True)


def test_other_calls_and_other_services_are_passed_over() -> None:
    plain = record("1", additionalEventData=None)
    s3 = record("2", eventSource="s3.amazonaws.com")
    assert list(trail_records(json.dumps({"Records": [plain, s3]}).encode())) == []
    result = reconciled([plain, s3], [event("3", "GetKeyMetadata"), event("", "GetHealthStatus")])
    assert result.agrees


@pytest.mark.parametrize(
    "file",
    [
        {"Records": [record("1")]},
        {"Events": [{"EventId": "e", "CloudTrailEvent": json.dumps(record("1"))}], "NextToken": "t"},
        {"version": "0", "detail-type": "AWS API Call via CloudTrail", "detail": record("1")},
    ],
    ids=["bucket", "lookup-events", "eventbridge"],
)
def test_each_form_in_which_records_come_is_read(file: dict[str, Any]) -> None:
    assert [found.request_id for found in trail_records(json.dumps(file).encode())] == ["1"]


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b"\xff", b'{"Records":[{}]}', b'{"Events":[{"CloudTrailEvent":"{"}]}']
)
def test_what_is_no_file_of_cloudtrail_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed, match="not a file of CloudTrail"):
        list(trail_records(raw))
