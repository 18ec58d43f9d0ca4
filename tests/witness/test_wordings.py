"""Every exception of KMS, as each SDK and tool writes it, is explained as that exception and nothing else."""

# ruff: noqa: E501 (what tools write is not wrapped)

import gzip
from pathlib import Path
from typing import Any

import botocore
import msgspec
import pytest
from botocore.loaders import Loader

from holdfast.witness.explain import exceptions, explain, refusal_title, title
from holdfast.witness.explanations import REFUSALS
from holdfast.witness.kms_errors import KMS_ERRORS
from holdfast.xks.errors import ErrorName

_MODEL = Loader().load_service_model("kms", "service-2")
_MODELLED = sorted(name for name, shape in _MODEL["shapes"].items() if shape.get("exception"))
_COMMON = ["AccessDeniedException", "ThrottlingException", "ValidationException", "UnrecognizedClientException"]
_WITHOUT_EXCEPTION = [
    "IncompleteSignature",
    "InternalFailure",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestExpired",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
]
"""Of the errors that every AWS API may return, those whose name does not end in Exception."""
_ID = "0b4e7b4a-1e2f-4a5b-8c6d-7e8f9a0b1c2d"
_JAVA = "Service: Kms, Status Code: 400, Request ID: " + _ID

WORDINGS = {
    "boto3": "botocore.exceptions.ClientError: An error occurred ({name}) when calling the Decrypt operation: {message}",
    "boto3 class": "botocore.errorfactory.{name}: An error occurred ({name}) when calling the Decrypt operation: {message}",
    "boto3 retries": "An error occurred ({name}) when calling the Decrypt operation (reached max retries: 4): {message}",
    "AWS CLI v2": "\naws: [ERROR]: An error occurred ({name}) when calling the Decrypt operation: {message}\n",
    "Go v2": "operation error KMS: Decrypt, https response error StatusCode: 400, RequestID: "
    + _ID
    + ", {name}: {message}",
    "Go v2 unmodelled": "operation error KMS: Decrypt, https response error StatusCode: 400, RequestID: "
    + _ID
    + ", api error {name}: {message}",
    "Go v2 type": "*types.{name}: {message}",
    "Go v1": "{name}: {message}\n\tstatus code: 400, request id: " + _ID,
    "Java v1": "com.amazonaws.services.kms.model.{name}: {message} (Service: AWSKMS; Status Code: 400; "
    "Error Code: {name}; Request ID: " + _ID + "; Proxy: null)",
    "Java v1 unmodelled": "com.amazonaws.services.kms.model.AWSKMSException: {message} (Service: AWSKMS; "
    "Status Code: 400; Error Code: {name}; Request ID: " + _ID + "; Proxy: null)",
    "Java v2": "software.amazon.awssdk.services.kms.model.{capitals}: {message} ("
    + _JAVA
    + ") (SDK Attempt Count: 1)",
    "JavaScript v3": "{name}: {message}\n    at de_CommandError (dist-cjs/index.js:1:1) {{\n  '$fault': 'client',\n"
    "  '$metadata': {{ httpStatusCode: 400, requestId: '" + _ID + "', attempts: 1 }},\n  __type: '{name}'\n}}",
    "JavaScript v2": "{name}: {message}\n    at Request.extractError (json.js:80:27) {{\n  code: '{name}',\n  statusCode: 400 }}",
    "Rust": 'service error: {capitals}: {message}: {capitals}({capitals} {{ message: Some("{message}"), meta: '
    'ErrorMetadata {{ code: Some("{name}"), extras: Some({{"aws_request_id": "x"}}) }} }})',
    "Rust unmodelled": 'unhandled error ({name}): Unhandled(Unhandled {{ source: ErrorMetadata {{ code: Some("{name}"), '
    'message: Some("{message}"), extras: None }} }})',
    ".NET": "Amazon.KeyManagementService.Model.{name}: {message}\n ---> Amazon.Runtime.Internal."
    "HttpErrorResponseException: Exception of type 'HttpErrorResponseException' was thrown.",
    ".NET unmodelled": "Amazon.KeyManagementService.AmazonKeyManagementServiceException: {message} ErrorCode: {name}",
    "PHP": 'Aws\\Kms\\Exception\\KmsException: Error executing "Decrypt" on "https://kms.eu-west-1.amazonaws.com"; AWS '
    "HTTP error: Client error: `POST https://kms.eu-west-1.amazonaws.com` resulted in a `400 Bad Request` response: "
    '{{"__type":"{name}","message":"{message}"}} {name} (client): {message}',
    "Ruby": "Aws::KMS::Errors::{name} ({message})",
    "C++": "Exception name: {name}\nError message: {message}\n3 response headers",
    "Swift or Kotlin": "aws.sdk.kotlin.services.kms.model.{capitals}: {message}, Request ID: " + _ID,
    "Terraform": "Error: creating KMS Key: operation error KMS: CreateKey, https response error StatusCode: 400, "
    "RequestID: " + _ID + ", {name}: {message}\n\n  with aws_kms_key.a,\n  on main.tf line 1, in resource:",
    "OpenTofu state": "Error: Unable to decrypt state: failed to decrypt key: operation error KMS: Decrypt, https response "
    "error StatusCode: 400, RequestID: " + _ID + ", {name}: {message}",
    "CloudFormation": 'Resource handler returned message: "{message} (' + _JAVA + ')" (RequestToken: x, '
    "HandlerErrorCode: {name})",
    "Lambda": "Lambda was unable to decrypt the environment variables because KMS access was denied. Please check the "
    "function's KMS key settings. KMS Exception: {name} KMS Message: {message}",
    "CloudTrail": '{{"eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "errorCode": "{name}", '
    '"errorMessage": "{message}", "requestID": "' + _ID + '"}}',
    "CloudTrail, short": '{{"eventName": "Decrypt", "errorCode": "{short}", "errorMessage": "{message}"}}',
    "the wire": '{{"__type":"com.amazonaws.kms#{name}","message":"{message}"}}',
    "the wire, short": '{{"__type":"{name}"}}',
    "alone": "{name}",
    "in lower case": "{lower}: {message}",
}
"""How tools write an exception. `capitals` is the spelling of Java v2 and Rust: KmsInvalidStateException."""


def wording(template: str, name: str, message: str = "") -> str:
    return template.format(
        name=name,
        capitals=name.replace("KMS", "Kms"),
        short=name.removesuffix("Exception"),
        lower=name.lower(),
        message=message,
    )


def expected(name: str) -> set[str]:
    """The titles of everything that can be behind the exception when its message says nothing."""
    own = {refusal_title(each) for each in REFUSALS if each.exception == name}
    return own | {title(failure) for failure, error in KMS_ERRORS.items() if name in exceptions(error)}


def test_every_exception_of_the_service_model_is_known() -> None:
    assert {name for name in (*_MODELLED, *_COMMON, *_WITHOUT_EXCEPTION) if not expected(name)} == set()


@pytest.mark.parametrize("template", WORDINGS.values(), ids=WORDINGS)
def test_an_exception_is_found_by_its_name_in_every_wording(template: str) -> None:
    wrong = {}
    for name in (*_MODELLED, *_COMMON, *_WITHOUT_EXCEPTION):
        found = {match.name for match in explain(wording(template, name))}
        proxys = {title(ErrorName(name))} if template == "{name}" and name in set(ErrorName) else set()
        if found != expected(name) | proxys:
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize("template", [each for each in WORDINGS.values() if "{message}" in each])
@pytest.mark.parametrize("name", ["KMSInvalidStateException", "KMSInternalException"])
def test_the_message_decides_in_every_wording(template: str, name: str) -> None:
    wrong = {}
    for failure, error in KMS_ERRORS.items():
        same = {title(other) for other, each in KMS_ERRORS.items() if each.message == error.message}
        found = {match.name for match in explain(wording(template, name, error.message))}
        if found != same:
            wrong[failure] = found
    assert wrong == {}


@pytest.mark.parametrize("template", [each for each in WORDINGS.values() if "{message}" in each])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/a is not authorized to perform: kms:Decrypt on resource: x",
        ),
        ("ValidationException", "XksKeyId is required when Origin is EXTERNAL_KEY_STORE, in an external key store."),
        (
            "UnsupportedOperationException",
            "arn:x origin is EXTERNAL_KEY_STORE which is not valid for this operation.",
        ),
        ("InvalidCiphertextException", ""),
        ("NotFoundException", "Key 'arn:aws:kms:us-east-1:1:key/x' does not exist"),
        (
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        ),
        ("DisabledException", "arn:aws:kms:us-east-1:1:key/x is disabled."),
        ("InvalidKeyUsageException", "arn:x key usage is ENCRYPT_DECRYPT which is not valid for Sign."),
        ("DependencyTimeoutException", "The system timed out while trying to fulfill the request."),
        ("XksKeyAlreadyInUseException", "The external key associated with this KMS key is already in use."),
    ],
)
def test_what_kms_refuses_is_never_taken_for_an_answer_of_the_proxy(template: str, name: str, message: str) -> None:
    """Whatever words the message shares with those of the external key store."""
    assert {match.name for match in explain(wording(template, name, message))} == {f"KMS itself refused: {name}"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: kms:Decrypt on the resource",
            "AccessDenied",
        ),
        (
            f"software.amazon.awssdk.services.kms.model.KmsException: User: x is not authorized to perform: kms:Encrypt ({_JAVA})",
            "AccessDenied",
        ),
        ("Lambda was unable to decrypt. KMS Exception: KMSAccessDeniedException KMS Message: denied", "AccessDenied"),
        ("arn:aws:kms:us-east-1:1:key/x is disabled. (Service: Kms, Status Code: 400)", "Disabled"),
        ("KMSDisabledException", "Disabled"),
    ],
)
def test_a_message_without_the_name_or_under_lambdas_name_is_found_too(text: str, name: str) -> None:
    assert [match.name for match in explain(text)] == [f"KMS itself refused: {name}Exception"]


@pytest.mark.parametrize("name", ["AccessDenied", "KMSInvalidState", "XksKeyNotFound", "InvalidCiphertext"])
def test_a_name_is_found_without_its_exception(name: str) -> None:
    """As S3, EC2 and tools shorten it."""
    found = {match.name for match in explain(f"An error occurred ({name}) when calling Decrypt")}
    assert found == expected(f"{name}Exception")


_OTHER_SERVICE = "another AWS service could not use a KMS key"


class _Shape(msgspec.Struct):
    exception: bool = False
    error: dict[str, Any] = {}


class _Model(msgspec.Struct):
    """What is read of a service's model: the whole of all of them takes botocore many seconds."""

    shapes: dict[str, _Shape]


def test_every_exception_that_a_service_names_after_kms_is_explained() -> None:
    """Of all services that botocore knows."""
    codes = {
        shape.error.get("code", name)
        for file in (Path(botocore.__file__).parent / "data").glob("*/*/service-2.json.gz")
        for name, shape in msgspec.json.decode(gzip.decompress(file.read_bytes()), type=_Model).shapes.items()
        if "kms" in name.lower() and shape.exception
    }
    assert len(codes) > 40
    assert {code for code in codes if not explain(f"An error occurred ({code}) when calling it: ")} == set()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("KmsInvalidState", "KMSInvalidStateException"),
        ("KMSInvalidStateFault", "KMSInvalidStateException"),
        ("KmsDisabled", "DisabledException"),
        ("KMSDisabledFault", "DisabledException"),
        ("KmsKeyDisabledException", "DisabledException"),
        ("KMS.DisabledException", "DisabledException"),
        ("KMSNotFoundFault", "NotFoundException"),
        ("KmsKeyNotFoundException", "NotFoundException"),
        ("EncryptionKeyNotFoundException", "NotFoundException"),
        ("KmsAccessDenied", "AccessDeniedException"),
        ("EncryptionKeyAccessDeniedException", "AccessDeniedException"),
        ("KMSThrottlingFault", "ThrottlingException"),
        ("KmsInvalidKeyUsage", "InvalidKeyUsageException"),
        ("KMSOptInRequired", "OptInRequired"),
        ("KMS_OPT_IN_REQUIRED", "OptInRequired"),
        ("KMS_INVALID_STATE", "KMSInvalidStateException"),
        ("KMS_InvalidStateException", "KMSInvalidStateException"),
        ("KMS_KEY_NOT_FOUND", "NotFoundException"),
        ("KMSKeyNotFound", "NotFoundException"),
        ("KMS_ACCESS_DENIED", "AccessDeniedException"),
        ("KMS_DISABLED", "DisabledException"),
        ("KMS_THROTTLING", "ThrottlingException"),
    ],
)
def test_what_a_service_puts_around_the_name_of_an_exception_does_not_hide_it(text: str, name: str) -> None:
    for template in ("{}", "An error occurred ({}) when calling the Anything operation: "):
        assert {match.name for match in explain(template.format(text))} == expected(name)


@pytest.mark.parametrize(
    "text",
    [
        "Client.InvalidKMSKey.InvalidState: The KMS key provided is in an incorrect state",
        "KMSKeyNotAccessibleFault",
        "EncryptionFailure",
        "An error occurred (DecryptionFailure) when calling the GetSecretValue operation: ",
        '"TableStatus": "INACCESSIBLE_ENCRYPTION_CREDENTIALS"',
        '"DBInstanceStatus": "inaccessible-encryption-credentials"',
        '"Status": "INACCESSIBLE_ENCRYPTION_CREDENTIALS_RECOVERABLE"',
        "INACCESSIBLE_ENCRYPTION_KEY",
        "InvalidStateKMSKey: the key of the function",
        "DISABLED_KMS_KEY",
        "KMS_KEY_INACCESSIBLE",
        "KmsGrantRevoked",
        "CREATE_KMS_GRANT_FAILED",
        "ACCESS_DENIED_TO_ENCRYPTION_KEY",
        "InvalidSourceKmsKey",
        "KmsThrottled",
        "EncryptionKeyUnavailableException",
    ],
)
def test_what_does_not_say_which_exception_of_kms_points_at_cloudtrail(text: str) -> None:
    (match,) = explain(text)
    assert match.name == _OTHER_SERVICE
    assert "CloudTrail" in match.explanation.look


def test_the_message_of_kms_decides_also_where_another_service_repeats_it() -> None:
    error = KMS_ERRORS[ErrorName.KEY_NOT_FOUND]
    (match,) = explain(f"KMSKeyNotAccessibleFault: {error.message}")
    assert match.kms == error


def test_a_parameter_is_not_taken_for_an_exception() -> None:
    assert (
        explain("KmsKeyId KMSMasterKeyId kmsKeyArn KMSEncryptionContext EncryptionKey CUSTOMER_MANAGED_KMS_KEY") == []
    )


def test_a_general_word_is_not_taken_for_an_exception() -> None:
    assert explain("Validation of the Tag: NotFound, Disabled by Throttling, Conflict") == []
