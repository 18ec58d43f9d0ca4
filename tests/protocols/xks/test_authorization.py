"""Policies at their place in the pipeline: after the request is known, before anything of the key is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.protocols.xks.proxy import CREDENTIAL, METADATA, Proxy, Reply

from holdfast.policy.policies import Policies
from holdfast.xks.encoding import encode_base64
from holdfast.xks.sigv4 import Credential
from holdfast.xks.types import KeyStatus, Operation, SecretAccessKey

if TYPE_CHECKING:
    from tests.protocols.xks.software_hsm import SoftwareHsm

PERMIT = '@id("everybody") permit(principal, action, resource);\n'
FORBID = '@id("nobody-at-all") forbid(principal, action, resource);\n'
FIELDS: dict[Operation, dict[str, Any]] = {
    Operation.ENCRYPT: {"plaintext": "", "encryptionAlgorithm": "AES_GCM"},
    Operation.DECRYPT: {
        "ciphertext": "",
        "initializationVector": encode_base64(bytes(12)),
        "authenticationTag": encode_base64(bytes(16)),
        "encryptionAlgorithm": "AES_GCM",
    },
    Operation.GET_KEY_METADATA: {},
}
DECIDED = list(FIELDS)


def denied(reply: Reply) -> bool:
    """Whether this is the refusal of a policy, as the wire has it."""
    return (reply.status, reply.error) == (403, "AccessDeniedException")


def under(proxy: Proxy, text: str) -> Proxy:
    """The proxy with these policies."""
    proxy.policies = Policies.parse(text)
    return proxy


@pytest.mark.parametrize("operation", DECIDED)
def test_a_denial_asks_no_hsm_and_counts_no_encryption(proxy: Proxy, hsm: SoftwareHsm, operation: Operation) -> None:
    assert denied(under(proxy, FORBID).call(operation, FIELDS[operation]))
    assert hsm.calls == []
    assert proxy.taken == []


@pytest.mark.parametrize("operation", DECIDED)
def test_a_denial_is_the_same_whatever_the_state_of_the_key(proxy: Proxy, operation: Operation) -> None:
    """Who may not use a key learns neither that it exists nor whether it is disabled or blocked."""
    under(proxy, FORBID)
    bodies = {proxy.call(operation, FIELDS[operation], key=key).body for key in ("key-1", "no-such-key")}
    proxy.change_key("key-1", status=KeyStatus.DISABLED)
    bodies.add(proxy.call(operation, FIELDS[operation]).body)
    proxy.change(blocked=True)
    bodies.add(proxy.call(operation, FIELDS[operation]).body)
    assert len(bodies) == 1


@pytest.mark.parametrize("operation", DECIDED)
def test_a_denial_does_not_tell_the_caller_which_policy(proxy: Proxy, operation: Operation) -> None:
    """Spec, "Error codes": KMS hands the message on to the calling account's log."""
    for text in (
        FORBID,
        "\n\nforbid(principal, action, resource);",
        PERMIT.replace("principal,", "principal is AwsPrincipal,") + FORBID,
    ):
        reply = under(proxy, text).call(operation, FIELDS[operation])
        assert denied(reply)
        assert not [word for word in (b"nobody-at-all", b"everybody", b"line", b"forbid") if word in reply.body]


@pytest.mark.parametrize("operation", DECIDED)
def test_the_event_of_a_denial_names_the_policy(proxy: Proxy, operation: Operation) -> None:
    """Spec, "Logging": the specific statement in the policy responsible for the denial."""
    event = under(proxy, PERMIT + FORBID).call(operation, FIELDS[operation]).event
    assert (event.policies, event.detail) == (("nobody-at-all",), "forbidden by policy nobody-at-all")
    assert event.metadata is not None
    assert event.metadata.kms_request_id == METADATA["kmsRequestId"]


def test_the_event_of_a_default_deny_says_that_no_policy_permits_it(proxy: Proxy) -> None:
    event = under(proxy, 'permit(principal, action, resource in Keystore::"other");').encrypt(b"").event
    assert (event.policies, event.detail) == ((), "denied because no policy permits it")


def test_a_permitted_request_is_done_and_its_event_names_the_policy(proxy: Proxy) -> None:
    reply = under(proxy, PERMIT).encrypt(b"")
    assert (reply.status, reply.event.policies, reply.event.detail) == (200, ("everybody",), None)


def test_without_policies_everybody_passes_as_kms_decides(proxy: Proxy) -> None:
    reply = proxy.encrypt(b"")
    assert (reply.status, reply.event.policies) == (200, ())


def test_health_is_exempt(proxy: Proxy) -> None:
    """Spec, "GetHealthStatus": This API MUST be excluded from secondary authorization."""
    assert under(proxy, FORBID).call(Operation.GET_HEALTH_STATUS).status == 200


def test_a_policy_that_fails_denies(proxy: Proxy, hsm: SoftwareHsm) -> None:
    fails = '@id("broken") forbid(principal, action, resource) when { 9223372036854775807 + 1 == 0 };'
    reply = under(proxy, PERMIT + fails).encrypt(b"")
    assert denied(reply)
    assert reply.event.detail is not None
    assert "could not be evaluated" in reply.event.detail
    assert reply.event.policies == ("broken",)
    assert hsm.calls == []


def test_policies_are_not_asked_before_the_signature_is_verified(proxy: Proxy) -> None:
    stranger = Credential(CREDENTIAL.access_key_id, SecretAccessKey.parse("s" * 43), "us-east-2")
    reply = under(proxy, FORBID).post(Operation.ENCRYPT, b"{}", credential=stranger)
    assert (reply.error, reply.event.policies) == ("AuthenticationFailedException", ())


@pytest.mark.parametrize("operation", DECIDED)
def test_a_malformed_request_is_invalid_and_not_denied(proxy: Proxy, operation: Operation) -> None:
    assert under(proxy, FORBID).post(operation, b"{}").error == "ValidationException"


# ---- what policies are for


ONLY_ALICE = f'permit(principal == AwsPrincipal::"{METADATA["awsPrincipalArn"]}", action, resource);'


@pytest.mark.parametrize("operation", [Operation.ENCRYPT, Operation.GET_KEY_METADATA])
def test_a_key_can_be_usable_by_specific_aws_callers_only(proxy: Proxy, operation: Operation) -> None:
    """Spec, "Authorization"."""
    under(proxy, ONLY_ALICE)
    assert proxy.call(operation, FIELDS[operation]).status == 200
    proxy.metadata["awsPrincipalArn"] = "arn:aws:iam::123456789012:user/Bob"
    assert denied(proxy.call(operation, FIELDS[operation]))


def test_a_policy_can_be_about_one_key_of_a_keystore(proxy: Proxy) -> None:
    under(proxy, 'permit(principal, action, resource == ExternalKey::"test/key-2");')
    assert proxy.encrypt(b"", key="key-2").status == 200
    assert denied(proxy.encrypt(b""))


@pytest.mark.parametrize(
    ("field", "value", "condition"),
    [
        (
            "kmsViaService",
            "s3.us-east-2.amazonaws.com",
            'context has kmsViaService && context.kmsViaService like "s3.*"',
        ),
        ("awsSourceVpc", "vpc-1", 'context has awsSourceVpc && context.awsSourceVpc == "vpc-1"'),
        ("awsSourceVpce", "vpce-1", 'context has awsSourceVpce && context.awsSourceVpce == "vpce-1"'),
        ("kmsOperation", "ReEncrypt", 'context.kmsOperation == "ReEncrypt"'),
        (
            "kmsKeyArn",
            "arn:aws:kms:eu-west-1:111122223333:key/1",
            'context has region && context.region == "eu-west-1" && context.kmsKeyAccount == "111122223333"',
        ),
    ],
)
def test_every_part_of_the_request_metadata_reaches_the_policies(
    proxy: Proxy, field: str, value: str, condition: str
) -> None:
    under(proxy, f'permit(principal, action == Action::"Encrypt", resource) when {{ {condition} }};')
    assert denied(proxy.encrypt(b""))
    proxy.metadata[field] = value
    assert proxy.encrypt(b"").status == 200


def test_an_operation_of_kms_that_is_new_is_decided_and_never_invalid(proxy: Proxy) -> None:
    """Spec: it is acceptable that it fails authorization."""
    proxy.metadata["kmsOperation"] = "EncryptFromTheFuture"
    assert under(proxy, PERMIT).encrypt(b"").status == 200
    assert denied(
        under(proxy, 'permit(principal, action, resource) when { context.kmsOperation == "Encrypt" };').encrypt(b"")
    )
