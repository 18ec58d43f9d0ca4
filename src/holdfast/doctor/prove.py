"""One signed Encrypt and Decrypt over the wire: proof that credential, path, key and HSM fit together."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

from holdfast.control.errors import AdminError, Invalid, Prerequisite
from holdfast.control.kms_connection import KmsConnection
from holdfast.doctor.wire import Answer, Wire, trusting
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    RequestMetadata,
)
from holdfast.xks.types import ExternalKeyId, Operation

_POLL = 0.1
"""Seconds between two looks at a proxy that is starting."""
_PRINCIPAL = "arn:aws:iam::123456789012:user/holdfast-prove"
_KMS_KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
_HINTS = {
    ErrorName.INVALID_STATE: "`holdfast keystore list` shows what is blocked, `holdfast key list` what is disabled.",
    ErrorName.KEY_NOT_FOUND: "`holdfast key list` shows what is registered; `holdfast doctor` looks in the HSM.",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Milliseconds of each call, from the first byte sent to the last received, on one open connection."""

    encrypt_ms: float
    decrypt_ms: float


def prove(
    connection: KmsConnection,
    key: ExternalKeyId,
    *,
    pinned_to: Sequence[str] = (),
    authority: Path | None,
    now: Callable[[], datetime],
) -> Proof:
    """Encrypts 32 random bytes and decrypts them again. Raises AdminError if what comes back differs.

    `authority` is the PEM file of the certificate authority to trust; None trusts the system's. `pinned_to`: the only
    KMS keys that the key serves, if it does not serve all: the first of them is named.
    """
    metadata = RequestMetadata(
        kms_operation="Encrypt",
        kms_request_id="holdfast-prove",
        aws_principal_arn=_PRINCIPAL,
        kms_key_arn=pinned_to[0] if pinned_to else _KMS_KEY_ARN,
    )
    plaintext, aad = secrets.token_bytes(32), secrets.token_bytes(32)
    with Wire(connection.endpoint, tls=trusting(authority), now=now) as wire:
        encrypt = EncryptRequest(metadata, plaintext, aad, wants_cdiv=True)
        encrypted = _granted(wire.call(connection, key, Operation.ENCRYPT, encrypt.to_json()), Operation.ENCRYPT)
        sealed = EncryptResponse.parse(encrypted.body)
        decrypt = DecryptRequest(
            metadata,
            sealed.ciphertext,
            sealed.initialization_vector,
            sealed.authentication_tag,
            aad,
            sealed.ciphertext_metadata,
        )
        decrypted = _granted(wire.call(connection, key, Operation.DECRYPT, decrypt.to_json()), Operation.DECRYPT)
    if DecryptResponse.parse(decrypted.body).plaintext != plaintext:
        raise AdminError("the proxy decrypted to something else than was encrypted", hint="Run `holdfast doctor`.")
    return Proof(encrypted.milliseconds, decrypted.milliseconds)


def wait_until_ready(endpoint: str, *, authority: Path | None, seconds: float, now: Callable[[], datetime]) -> None:
    """Returns once GET /ready says yes. Raises Prerequisite if it does not within `seconds`."""
    give_up = monotonic() + seconds
    tls = trusting(authority)
    while True:
        try:
            with Wire(endpoint, tls=tls, now=now) as wire:
                ready = wire.is_ready()
            if ready:
                return
            if ready is None:
                raise Invalid(
                    f"what answers at {endpoint} is not Holdfast",
                    hint="Another program has the port, or --endpoint names another host.",
                )
            reason = Prerequisite(f"the proxy at {endpoint} is not ready", hint="GET /ready or its log says why.")
        except Prerequisite as failure:
            reason = failure
        if monotonic() > give_up:
            raise reason
        sleep(_POLL)


def _granted(answer: Answer, operation: Operation) -> Answer:
    if ErrorName.ACCESS_DENIED in answer.error:
        raise AdminError(
            f"the policies deny {operation} to {_PRINCIPAL}",
            hint="Permit it to that principal; the event log names the policy that decided.",
        )
    if answer.error:
        hint = next(
            (hint for name, hint in _HINTS.items() if name in answer.error), "`holdfast doctor` finds causes."
        )
        raise AdminError(f"{operation} was refused with {answer.error}", hint=hint)
    return answer
