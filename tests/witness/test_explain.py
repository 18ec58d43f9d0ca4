"""What KMS says leads back to what happened."""

import subprocess
import sys

import msgspec
import pytest
from botocore.loaders import Loader
from tests.waiting import PATIENCE

from holdfast.witness.explain import exceptions, explain, refusal_title, title
from holdfast.witness.explanations import CONNECTION_ERRORS, FAILURES, REFUSALS, Refusal
from holdfast.witness.kms_errors import KMS_ERRORS, ConnectionErrorCode, Failure
from holdfast.xks.errors import ErrorName


def test_every_failure_and_code_is_explained() -> None:
    assert set(FAILURES) == set(KMS_ERRORS) == set(ErrorName) | set(Failure)
    assert set(CONNECTION_ERRORS) == set(ConnectionErrorCode)


@pytest.mark.parametrize("failure", list(KMS_ERRORS))
def test_the_message_inside_a_client_error_finds_its_failure(failure: ErrorName | Failure) -> None:
    message = KMS_ERRORS[failure].message
    text = f"An error occurred (KMSInvalidStateException) when calling the Decrypt operation: {message}"
    expected = {title(other) for other, error in KMS_ERRORS.items() if error.message == message}
    assert {match.name for match in explain(text)} == expected


@pytest.mark.parametrize("code", list(ConnectionErrorCode))
def test_a_connection_error_code_is_found_in_the_output_of_the_aws_cli(code: ConnectionErrorCode) -> None:
    assert [match.name for match in explain(f'    "ConnectionErrorCode": "{code}",')] == [code]


@pytest.mark.parametrize("code", list(ConnectionErrorCode))
def test_a_connection_error_code_is_found_without_its_underscores(code: ConnectionErrorCode) -> None:
    assert [match.name for match in explain(code.replace("_", " "))] == [code]


@pytest.mark.parametrize("name", list(ErrorName))
def test_an_error_name_of_the_proxy_is_found(name: ErrorName) -> None:
    """After what KMS itself means by an exception of that name, which is what its callers see."""
    assert explain(name)[-1].name == title(name)


@pytest.mark.parametrize("name", list(ErrorName))
def test_an_answer_of_the_proxy_is_the_proxys(name: ErrorName) -> None:
    assert [match.name for match in explain(f'{{"errorName":"{name}","errorMessage":"x"}}')] == [title(name)]


@pytest.mark.parametrize("name", ["XksProxyUriUnreachableException", "xksproxyuriunreachableexception"])
def test_an_exception_finds_every_failure_that_raises_it(name: str) -> None:
    found = {match.name for match in explain(name)}
    assert found == {
        title(f) for f, error in KMS_ERRORS.items() if "XksProxyUriUnreachableException" in exceptions(error)
    }


def test_every_exception_of_kms_that_concerns_external_key_stores_is_explained() -> None:
    """As botocore's service model names them; the CloudHSM ones do not."""
    shapes = Loader().load_service_model("kms", "service-2")["shapes"]
    names = {name for name, shape in shapes.items() if shape.get("exception")}
    wanted = {name for name in names if name.startswith(("Xks", "CustomKeyStore", "KMSInvalidState", "Disabled"))}
    assert len(wanted) > 15
    assert {name for name in wanted if not explain(f"({name}) when calling the CreateKey operation")} == set()


@pytest.mark.parametrize("refusal", REFUSALS, ids=refusal_title)
def test_a_refusal_of_kms_is_not_taken_for_the_proxys(refusal: Refusal) -> None:
    text = f"An error occurred ({refusal.exception}) when calling the Decrypt operation: It {refusal.says} so."
    found = [match.name for match in explain(text)]
    assert refusal_title(refusal) in found
    assert title(ErrorName.THROTTLING) not in found or "Throttling" not in refusal.exception


@pytest.mark.parametrize("wrapped", ['{{"errorCode": "{}"}}', "botocore.errorfactory.{}: x", "({}) when calling"])
def test_what_a_caller_was_told_under_the_name_of_a_proxys_error_is_kmss_own(wrapped: str) -> None:
    """The proxy's ThrottlingException reaches a caller as KMSInvalidStateException."""
    assert [match.name for match in explain(wrapped.format("ThrottlingException"))] == [
        "KMS itself refused: ThrottlingException"
    ]


def test_a_denial_by_iam_is_not_the_proxys() -> None:
    """CloudTrail shortens the exception's name."""
    text = '"errorCode": "AccessDenied", "errorMessage": "User: x is not authorized to perform: kms:Decrypt"'
    assert [match.name for match in explain(text)] == ["KMS itself refused: AccessDeniedException"]


def test_a_record_of_cloudtrail_is_read_by_its_message() -> None:
    record = {
        "eventSource": "kms.amazonaws.com",
        "eventName": "Decrypt",
        "userIdentity": {"type": "AWSService", "invokedBy": "ec2.amazonaws.com"},
        "errorCode": "KMSInvalidStateException",
        "errorMessage": KMS_ERRORS[Failure.SOCKET_TIMEOUT].message,
    }
    text = msgspec.json.format(msgspec.json.encode(record)).decode()
    assert [match.name for match in explain(text)] == [title(Failure.SOCKET_TIMEOUT)]


@pytest.mark.parametrize("failure", list(KMS_ERRORS))
def test_a_message_that_was_cut_still_finds_its_failure(failure: ErrorName | Failure) -> None:
    """Behind its exception, cut by a log at 120 characters, wrapped by a console."""
    message = KMS_ERRORS[failure].message
    text = f"KMSInvalidStateException: {message[:60]}\n      {message[60:120]}…"
    found = {match.name for match in explain(text)}
    same = {title(other) for other, error in KMS_ERRORS.items() if error.message[:115] == message[:115]}
    assert found == same


def test_a_message_with_a_slip_is_still_found() -> None:
    message = KMS_ERRORS[ErrorName.THROTTLING].message.replace("very high", "to high").replace("Reduce", "reduce")
    assert [match.name for match in explain(message)] == [title(ErrorName.THROTTLING)]


def test_a_fragment_of_a_message_is_enough() -> None:
    assert [match.name for match in explain("could not authenticate AWS KMS")] == [
        title(ErrorName.AUTHENTICATION_FAILED)
    ]


@pytest.mark.parametrize("text", ["", "no such thing at all", "key", "External"])
def test_anything_else_is_not_explained(text: str) -> None:
    assert explain(text) == []


@pytest.mark.programs
def test_the_command_prints_json() -> None:
    done = _holdfast("explain", "XKS_PROXY_TIMED_OUT", "--json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout)[0]["name"] == "XKS_PROXY_TIMED_OUT"


@pytest.mark.programs
def test_the_command_takes_words_without_quotes() -> None:
    done = _holdfast("explain", "XKS", "PROXY", "TIMED", "OUT", "--json")
    assert msgspec.json.decode(done.stdout)[0]["name"] == "XKS_PROXY_TIMED_OUT"


@pytest.mark.programs
def test_the_command_says_what_to_do_with_an_unknown_error() -> None:
    done = _holdfast("explain", "gremlins")
    assert done.returncode != 0
    assert "hint:" in done.stderr


def _holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from holdfast.cli.main import main; sys.exit(main())", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
