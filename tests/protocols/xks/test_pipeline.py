"""From raw request to response: the order of the checks, every error name, every fault, and no secret."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.protocols.xks.proxy import CREDENTIAL, HOST, METADATA, Proxy, external_key

from holdfast.hsm import faults
from holdfast.hsm.faults import HsmFault, NativeCall
from holdfast.keys.budget import CountUnavailable, EncryptionLimitReached
from holdfast.keys.model import Takeover
from holdfast.keys.proof import Proof
from holdfast.policy.faults import AccessDenied
from holdfast.policy.policies import Policies
from holdfast.protocols.xks.event import Event, RecordUnavailable
from holdfast.protocols.xks.faults import WIRE, to_xks_error
from holdfast.protocols.xks.request import Request
from holdfast.store.changes import Registration, _check_key
from holdfast.store.errors import CatalogError
from holdfast.xks.aad import AadFraming, CiphertextMetadata
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName
from holdfast.xks.sigv4 import Credential, sign
from holdfast.xks.types import AccessKeyId, ExternalKeyId, KeyStatus, Operation, SecretAccessKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.protocols.xks.software_hsm import SoftwareHsm

MARK = b"marked plaintext, to be seen nowhere"
JSON = b'{"requestMetadata":{}}'
STRANGER = Credential(AccessKeyId("STRANGERSTRANGERSTRANGER"), SecretAccessKey.parse("s" * 43), "us-east-2")


def no_json(reply: Any) -> bool:
    return bool(reply.error == "ValidationException")


# ---- every name is reachable ---------------------------------------------------------------------


def _unknown_path(proxy: Proxy) -> Any:
    return proxy.send("POST", b"/nothing", {})


def _disabled(proxy: Proxy) -> Any:
    proxy.change_key("key-1", status=KeyStatus.DISABLED)
    return proxy.encrypt(b"")


def _denied(proxy: Proxy) -> Any:
    proxy.policies = Policies.parse("forbid(principal, action, resource);")
    return proxy.encrypt(b"")


def _faulty(fault: HsmFault) -> Callable[[Proxy], Any]:
    def call(proxy: Proxy) -> Any:
        proxy.hsm.fault = fault  # type: ignore[attr-defined]  # it is a SoftwareHsm here
        return proxy.encrypt(b"")

    return call


REACHED: dict[ErrorName, Callable[[Proxy], Any]] = {
    ErrorName.VALIDATION: lambda proxy: proxy.post(Operation.ENCRYPT, b"{}"),
    ErrorName.INVALID_STATE: _disabled,
    ErrorName.INVALID_CIPHERTEXT: lambda proxy: proxy.decrypt(proxy.encrypt(b"").json, b"another AAD"),
    ErrorName.INVALID_KEY_USAGE: lambda proxy: proxy.encrypt(b"", key="impotent"),
    ErrorName.AUTHENTICATION_FAILED: lambda proxy: proxy.post(Operation.ENCRYPT, JSON, credential=STRANGER),
    ErrorName.ACCESS_DENIED: _denied,
    ErrorName.KEY_NOT_FOUND: lambda proxy: proxy.encrypt(b"", key="nobody"),
    ErrorName.INVALID_URI_PATH: _unknown_path,
    ErrorName.THROTTLING: _faulty(faults.HsmBusy("full")),
    ErrorName.UNSUPPORTED_OPERATION: lambda proxy: proxy.encrypt(b"", bytes(65536)),
    ErrorName.DEPENDENCY_TIMEOUT: _faulty(faults.HsmTimeout("late")),
    ErrorName.INTERNAL: _faulty(faults.ModuleFailed("broken")),
}


def test_every_error_name_is_reached() -> None:
    assert set(REACHED) == set(ErrorName)


@pytest.mark.parametrize("name", REACHED)
def test_an_error_has_its_status_its_body_and_its_event(proxy: Proxy, name: ErrorName) -> None:
    reply = REACHED[name](proxy)
    assert (reply.status, reply.error) == (name.status, name)
    assert reply.headers == {b"content-type": b"application/json"}
    assert set(reply.json) == {"errorName", "errorMessage"}
    assert reply.json["errorMessage"]
    assert (reply.event.status, reply.event.error, reply.event.outcome) == (name.status, name, name)
    assert reply.event.detail


def test_a_success_has_an_event_without_an_error(proxy: Proxy) -> None:
    reply = proxy.encrypt(b"12345")
    event = reply.event
    assert (event.status, event.error, event.detail, event.function, event.ckr) == (200, None, None, None, None)
    assert event.outcome is None
    assert (event.keystore, event.external_key_id, event.generation) == ("test", "key-1", 1)
    assert (event.operation, event.access_key_id) == (Operation.ENCRYPT, str(CREDENTIAL.access_key_id))
    assert event.bytes_out == len(reply.body)
    assert event.total >= event.authentication > 0
    assert event.timing.hsm > 0


# ---- faults --------------------------------------------------------------------------------------


def _subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def test_every_fault_has_an_error_name_and_a_sentence() -> None:
    """Also those of the PKCS#11 backend; a fault outside hsm/faults.py is named as what it is a kind of."""
    kinds = [*_subclasses(HsmFault), EncryptionLimitReached, CountUnavailable, AccessDenied, RecordUnavailable]
    homes = {
        faults.__name__,
        CountUnavailable.__module__,
        AccessDenied.__module__,
        RecordUnavailable.__module__,
    }
    assert {kind for kind in kinds if kind.__module__ in homes} == set(WIRE)
    for kind in kinds:
        error = to_xks_error(kind("why"))
        assert (error.name, error.message) in WIRE.values()


@pytest.mark.parametrize("kind", WIRE)
def test_a_fault_is_answered_with_its_name_and_logged_with_its_words(
    proxy: Proxy, hsm: SoftwareHsm, kind: type[Exception]
) -> None:
    fault = kind("the label 'secret-label' in slot 7")
    if isinstance(fault, HsmFault):
        fault.cause = NativeCall("C_Encrypt", 0x30)
        hsm.fault = fault
    else:
        proxy.budget = fault
    reply = proxy.encrypt(b"")
    assert reply.error == WIRE[kind][0]
    assert b"secret-label" not in reply.body
    assert reply.event.detail == "the label 'secret-label' in slot 7"
    if isinstance(fault, HsmFault):
        assert (reply.event.function, reply.event.ckr) == ("C_Encrypt", 0x30)


def test_a_fault_narrower_than_those_known_is_named_as_what_it_is_a_kind_of(proxy: Proxy, hsm: SoftwareHsm) -> None:
    class CardPulled(faults.HsmUnavailable):
        """As a backend may have one of its own."""

    hsm.fault = CardPulled("no card")
    assert proxy.encrypt(b"").error == "DependencyTimeoutException"


def test_a_fault_of_no_kind_is_internal(proxy: Proxy, hsm: SoftwareHsm) -> None:
    hsm.fault = HsmFault("of no kind")
    assert proxy.encrypt(b"").error == "InternalException"


@pytest.mark.parametrize("bug", [RuntimeError, KeyError, RecursionError, MemoryError])
def test_a_bug_is_internal_and_its_words_are_not_told(proxy: Proxy, hsm: SoftwareHsm, bug: type[Exception]) -> None:
    hsm.fault = bug(MARK.decode())
    reply = proxy.encrypt(MARK)
    assert reply.error == "InternalException"
    assert reply.event.detail is not None
    assert reply.event.detail.startswith(f"{bug.__name__} at ")
    assert "software_hsm.py:" in reply.event.detail
    assert MARK.decode() not in repr(reply)


def test_a_key_in_an_hsm_that_is_not_configured_is_internal(proxy: Proxy) -> None:
    proxy.hsms = {}
    for operation in (Operation.ENCRYPT, Operation.GET_KEY_METADATA):
        reply = proxy.call(operation, {"plaintext": "", "encryptionAlgorithm": "AES_GCM"})
        assert (reply.error, reply.event.detail) == (
            "InternalException",
            "the external key is in an HSM that is not configured here",
        )


def test_nothing_is_encrypted_uncounted(proxy: Proxy, hsm: SoftwareHsm) -> None:
    sealed = proxy.encrypt(b"text").json
    hsm.calls.clear()
    for fault, name in (
        (EncryptionLimitReached("at its stop"), "InvalidStateException"),
        (CountUnavailable("no more"), "DependencyTimeoutException"),
    ):
        proxy.budget = fault
        assert proxy.encrypt(b"text").error == name
    assert hsm.calls == []
    assert proxy.decrypt(sealed).status == 200


# ---- path and method, before authentication ------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post", ""]
)
@pytest.mark.parametrize("operation", Operation)
def test_another_method_is_405_with_allow(proxy: Proxy, method: str, operation: Operation) -> None:
    """Spec, "API operations": a GET at these URIs is 405."""
    reply = proxy.send(method, proxy.path(operation), {})
    assert (reply.status, reply.headers, reply.body) == (405, {b"allow": b"POST"}, b"")
    assert (reply.event.status, reply.event.operation, reply.event.error) == (405, operation, None)
    assert reply.event.outcome == "MethodNotAllowed"


@pytest.mark.parametrize(
    "target", [b"/", b"*", b"/ping", b"/other/kms/xks/v1/health", b"/test/kms/xks/v1/keys/k/sign"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_path_is_an_invalid_uri_path_whatever_the_method(proxy: Proxy, method: str, target: bytes) -> None:
    assert proxy.send(method, target, {}, JSON).error == "InvalidUriPathException"


@pytest.mark.parametrize("query", [b"?", b"?a=b", b"?X-Amz-Signature=0"])
def test_a_query_string_is_not_authentic(proxy: Proxy, query: bytes) -> None:
    path = proxy.path(Operation.GET_HEALTH_STATUS)
    headers = sign("POST", path, host=HOST, body=JSON, credential=CREDENTIAL, now=datetime.now(UTC))
    assert proxy.send("POST", path + query, headers, JSON).error == "AuthenticationFailedException"


# ---- authentication, before anything else --------------------------------------------------------

BODIES = [b"", b"not json", b"[" * 50_000, JSON, b"\xff"]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("key", ["key-1", "nobody"])
def test_nothing_of_the_body_is_parsed_for_a_stranger(
    proxy: Proxy, hsm: SoftwareHsm, monkeypatch: pytest.MonkeyPatch, body: bytes, key: str
) -> None:
    from holdfast.xks import messages  # noqa: PLC0415 (looks inside on purpose)

    def parsed(_: bytes) -> None:
        pytest.fail("the body was parsed")

    monkeypatch.setattr(messages, "decode_json_object", parsed)
    proxy.change(blocked=True)
    for operation in Operation:
        reply = proxy.post(operation, body, key=key, credential=STRANGER)
        assert reply.error == "AuthenticationFailedException"
        assert reply.event.access_key_id is None
    assert hsm.calls == proxy.used == []


def test_a_stranger_learns_nothing_of_keys_and_states(proxy: Proxy) -> None:
    first = proxy.post(Operation.ENCRYPT, JSON, credential=STRANGER).body
    proxy.change(blocked=True)
    assert proxy.post(Operation.ENCRYPT, JSON, key="nobody", credential=STRANGER).body == first


def test_a_credential_of_another_key_store_is_a_strangers(proxy: Proxy) -> None:
    proxy.change(credentials={str(STRANGER.access_key_id): STRANGER.secret_access_key})
    assert proxy.encrypt(b"").error == "AuthenticationFailedException"
    assert proxy.post(Operation.GET_HEALTH_STATUS, _body(), credential=STRANGER).status == 200


def test_an_old_request_is_refused(proxy: Proxy) -> None:
    path = proxy.path(Operation.GET_HEALTH_STATUS)
    then = datetime.now(UTC) - timedelta(minutes=5, seconds=5)
    headers = sign("POST", path, host=HOST, body=_body(), credential=CREDENTIAL, now=then)
    assert proxy.send("POST", path, headers, _body()).error == "AuthenticationFailedException"


def test_the_key_stores_region_is_the_only_one(proxy: Proxy) -> None:
    proxy.change(region="eu-west-1")
    assert proxy.encrypt(b"").error == "AuthenticationFailedException"
    proxy.change(region="us-east-2")
    assert proxy.encrypt(b"").status == 200


def test_the_use_of_a_credential_is_told_also_for_a_bad_body(proxy: Proxy) -> None:
    proxy.post(Operation.ENCRYPT, b"")
    assert proxy.used == [str(CREDENTIAL.access_key_id)]


@pytest.mark.parametrize("prefix", ["", "/a/b"])
def test_a_key_store_may_have_any_prefix(proxy: Proxy, prefix: str) -> None:
    proxy.change(prefix=type(proxy.keystore.prefix).parse(prefix))
    assert proxy.encrypt(b"").status == 200


# ---- the body, then the key, then the HSM --------------------------------------------------------


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("body", BODIES[:3] + BODIES[4:], ids=range(4))
def test_a_bad_body_is_a_validation_exception_without_an_hsm_call(
    proxy: Proxy, hsm: SoftwareHsm, operation: Operation, body: bytes
) -> None:
    assert no_json(proxy.post(operation, body))
    assert hsm.calls == []


@pytest.mark.parametrize("operation", [Operation.ENCRYPT, Operation.DECRYPT, Operation.GET_KEY_METADATA])
def test_an_unknown_key_is_not_found_without_asking_the_hsm(
    proxy: Proxy, hsm: SoftwareHsm, operation: Operation
) -> None:
    sealed = {
        "ciphertext": "",
        "initializationVector": encode_base64(bytes(12)),
        "authenticationTag": encode_base64(bytes(16)),
    }
    fields = {"plaintext": "", "encryptionAlgorithm": "AES_GCM", **sealed}
    for key in ("nobody", "key-1 ".strip() + "x", ".."):
        assert proxy.call(operation, fields, key=key).error == "KeyNotFoundException"
    assert hsm.calls == []


def test_a_key_that_the_token_lost_is_not_found(proxy: Proxy) -> None:
    proxy.change(keys={"key-1": external_key("not on the token")})
    for reply in (proxy.encrypt(b""), proxy.encrypt(b"", cdiv=True), proxy.call(Operation.GET_KEY_METADATA)):
        assert reply.error == "KeyNotFoundException"


def test_a_key_that_this_node_still_looks_for_is_not_said_to_be_gone(proxy: Proxy) -> None:
    """NShield shows a key that was made meanwhile only after another C_Initialize."""
    sealed = proxy.encrypt(b"").json
    proxy.change(keys={"key-1": external_key("not on the token")})
    proxy.new = frozenset({proxy.keystore.keys["key-1"].active.id})
    replies = (
        proxy.encrypt(b""),
        proxy.encrypt(b"", cdiv=True),
        proxy.call(Operation.GET_KEY_METADATA),
        proxy.decrypt(sealed),
    )
    assert [reply.error for reply in replies] == ["InternalException"] * len(replies)


def test_an_unusable_key_is_refused_without_an_hsm_call(proxy: Proxy, hsm: SoftwareHsm) -> None:
    sealed = proxy.encrypt(b"").json
    hsm.calls.clear()
    proxy.change_key("key-1", status=KeyStatus.DISABLED)
    for reply in (proxy.encrypt(b""), proxy.encrypt(b"", cdiv=True), proxy.decrypt(sealed)):
        assert reply.error == "InvalidStateException"
    assert hsm.calls == []
    assert proxy.taken == [1]


# ---- takeover ------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", AadFraming)
def test_metadata_of_our_own_format_cannot_be_taken_over(framing: AadFraming) -> None:
    """Else every ciphertext of ours would pass for one of AWS's sample, and would not open any more."""
    with pytest.raises(CatalogError, match="Holdfast's own"):
        _check_key(taken_over(CiphertextMetadata(framing, 1).to_bytes()))


def test_other_metadata_can_be_taken_over() -> None:
    _check_key(taken_over(b"\3\0\0\0\1"))


def taken_over(metadata: bytes) -> Registration:
    """A key whose ciphertexts carry this metadata."""
    key = ExternalKeyId("key-1")
    return Registration(
        keystore="k", external_key_id=key, hsm="main", label="key-1", proof=Proof(), takeover=Takeover(metadata)
    )


# ---- secrecy -------------------------------------------------------------------------------------


def test_no_plaintext_and_no_secret_is_in_events_or_errors(proxy: Proxy, hsm: SoftwareHsm) -> None:
    """Spec, "Logging". Every outcome that a plaintext can meet, with the plaintext marked in each encoding."""
    sealed = proxy.encrypt(MARK).json
    outcomes = [proxy.encrypt(MARK), proxy.encrypt(MARK, key="impotent"), proxy.encrypt(MARK, key="nobody")]
    outcomes += [proxy.decrypt(sealed, b"x"), proxy.post(Operation.ENCRYPT, _body(plaintext=MARK.decode()))]
    outcomes += [proxy.post(Operation.ENCRYPT, _body(plaintext=[MARK.decode()]))]
    outcomes += [proxy.post(Operation.ENCRYPT, _body(plaintext=MARK.decode())[:-1])]
    outcomes += [proxy.post(Operation.ENCRYPT, MARK), proxy.post(Operation.ENCRYPT, JSON, credential=STRANGER)]
    for fault in (*[kind("why") for kind in WIRE], RuntimeError(MARK)):
        hsm.fault = fault
        outcomes.append(proxy.encrypt(MARK))
    hsm.fault, hsm.corrupt = None, True
    outcomes.append(proxy.encrypt(MARK, cdiv=True))
    opened = proxy.decrypt(sealed)
    shown = [repr(asdict(reply.event)) + str(reply.body) for reply in outcomes]
    shown += [repr(opened.event), repr(proxy.keystore), repr(proxy.services)]
    marks = [MARK.decode(), encode_base64(MARK), "MarkedSecret", CREDENTIAL.secret_access_key.reveal().hex()]
    assert encode_base64(MARK) in opened.body.decode()
    for text in shown:
        assert not [mark for mark in marks if mark in text]


def test_a_request_cannot_be_printed_with_its_body(proxy: Proxy) -> None:
    """Error trackers print the local variables of a traceback."""
    body = _body(plaintext=encode_base64(MARK))
    request = Request(proxy.keystore, None, body, deadline=0.0, event=Event(), now=datetime.now(UTC))
    assert "deadline=0.0" in repr(request)
    assert encode_base64(MARK) not in repr(request)


def _body(**fields: Any) -> bytes:
    return json.dumps({"requestMetadata": METADATA, "encryptionAlgorithm": "AES_GCM", **fields}).encode()
