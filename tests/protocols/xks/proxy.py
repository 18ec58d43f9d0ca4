"""A pipeline over one HSM and one snapshot, called as the server calls it, without sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any

from holdfast.keys.model import ExternalKey, Generation, Keystore, Snapshot, Takeover
from holdfast.keys.states import GenerationState
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.pipeline import Pipeline
from holdfast.protocols.xks.services import Services
from holdfast.xks.aad import KEY_TAG_BYTES, key_tag
from holdfast.xks.encoding import decode_base64, encode_base64
from holdfast.xks.sigv4 import Credential, sign
from holdfast.xks.types import (
    AccessKeyId,
    ExternalKeyId,
    KeyStatus,
    Operation,
    SecretAccessKey,
    UriPathPrefix,
)
from holdfast.xks.uri import Target, request_path

if TYPE_CHECKING:
    from holdfast.hsm.port import Hsm
    from holdfast.policy.policies import Policies

PREFIX = "/test"
HOST = "proxy.example.com"
CREDENTIAL = Credential(
    AccessKeyId.parse("HOLDFASTTESTACCESSKEY"),
    SecretAccessKey.parse("MarkedSecretAccessKey0123456789/+=0123456789"),
    "us-east-2",
)
METADATA = {
    "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
    "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "kmsOperation": "Encrypt",
    "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
}
LABELS = ("key-1", "key-2", "encrypt-only", "decrypt-only", "impotent", "aes-128")


@dataclass(frozen=True)
class Reply:
    """A response and the event that was written for it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    event: Event

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        value: dict[str, Any] = json.JSONDecoder().decode(self.body.decode())
        return value

    @property
    def error(self) -> str:
        """`errorName`; empty for a success."""
        return "" if self.status == 200 else self.json["errorName"]


@dataclass
class Proxy:
    """`keystore` may be replaced between calls, as a new snapshot does; `budget` raises it if it is a fault.

    `in_catalog` takes its place when the catalog is read again; None: the catalog does not answer. `new`: generations
    that were met after the start, and are not found yet.
    """

    hsm: Hsm
    keystore: Keystore
    budget: Exception | None = None
    taken: list[int] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    hsms: dict[str, Hsm] | None = None
    clock: Any = monotonic
    policies: Policies | None = None
    metadata: dict[str, str] = field(default_factory=METADATA.copy)
    in_catalog: Keystore | None = None
    new: frozenset[int] = frozenset()
    looks: int = 0

    async def take(self, generation: Generation, *, deadline: float) -> None:
        """The Budget protocol."""
        del deadline
        if self.budget is not None:
            raise self.budget
        self.taken.append(generation.number)

    async def look_again(self, deadline: float) -> bool:
        """Read the catalog."""
        del deadline
        self.looks += 1
        self.keystore = self.in_catalog or self.keystore
        return self.in_catalog is not None

    def change(self, **changes: Any) -> None:
        """Change the key store."""
        self.keystore = replace(self.keystore, **changes)

    def change_key(self, name: str, **changes: Any) -> None:
        """Change one of its keys."""
        key = replace(self.keystore.keys[name], **changes)
        self.change(keys={**self.keystore.keys, name: key})

    @property
    def services(self) -> Services:
        """What the pipeline is given."""
        return Services(
            lambda: Snapshot(1, {self.keystore.prefix.value: self.keystore}, 3),
            self.look_again,
            lambda generation: generation.id in self.new,
            {"main": self.hsm} if self.hsms is None else self.hsms,
            self,
            lambda access_key_id, _: self.used.append(access_key_id),
            self.clock,
            lambda: datetime.now(UTC),
            5.0,
            self.policies,
        )

    # ---- calls

    def encrypt(self, plaintext: bytes, aad: bytes | None = None, *, key: str = "key-1", cdiv: bool = False) -> Reply:
        """Encrypt."""
        fields: dict[str, Any] = {"plaintext": encode_base64(plaintext), "encryptionAlgorithm": "AES_GCM"}
        if aad is not None:
            fields["additionalAuthenticatedData"] = encode_base64(aad)
        if cdiv:
            fields["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256"
        return self.call(Operation.ENCRYPT, fields, key=key)

    def decrypt(
        self, sealed: dict[str, Any], aad: bytes | None = None, *, key: str = "key-1", **fields: Any
    ) -> Reply:
        """Decrypt what Encrypt answered; a field set to None is left out."""
        body = {**sealed, "encryptionAlgorithm": "AES_GCM", **fields}
        if aad is not None:
            body["additionalAuthenticatedData"] = encode_base64(aad)
        return self.call(
            Operation.DECRYPT, {name: value for name, value in body.items() if value is not None}, key=key
        )

    def call(self, operation: Operation, fields: dict[str, Any] | None = None, *, key: str = "key-1") -> Reply:
        """A signed call."""
        return self.post(
            operation, json.dumps({"requestMetadata": self.metadata, **(fields or {})}).encode(), key=key
        )

    def post(
        self, operation: Operation, body: bytes, *, key: str = "key-1", credential: Credential = CREDENTIAL
    ) -> Reply:
        """Any signed body."""
        path = self.path(operation, key)
        headers = sign("POST", path, host=HOST, body=body, credential=credential, now=datetime.now(UTC))
        return self.send("POST", path, {**headers, "Content-Type": "application/json"}, body)

    def path(self, operation: Operation, key: str = "key-1") -> bytes:
        """The request path."""
        named = None if operation is Operation.GET_HEALTH_STATUS else ExternalKeyId(key)
        return request_path(Target(self.keystore.prefix.value, operation, named)).encode()

    def send(self, method: str, target: bytes, headers: dict[str, str], body: bytes = b"") -> Reply:
        """Any request, as it is."""
        event = Event()
        response = asyncio.run(
            Pipeline(self.services).handle(
                method,
                target,
                headers=[(name.lower().encode(), value.encode()) for name, value in headers.items()],
                body=body,
                arrived=self.clock(),
                event=event,
            )
        )
        return Reply(response.status, dict(response.headers), response.body, event)


def plaintext_of(reply: Reply) -> bytes:
    """What Decrypt answered."""
    return decode_base64(reply.json["plaintext"], "plaintext")


def keystore_of(labels: tuple[str, ...] = LABELS) -> Keystore:
    """A key store whose external key ids are the labels in the HSM."""
    return Keystore(
        "test",
        UriPathPrefix.parse(PREFIX),
        blocked=False,
        region=None,
        credentials={str(CREDENTIAL.access_key_id): CREDENTIAL.secret_access_key},
        keys={label: external_key(label) for label in labels},
    )


def external_key(label: str, *more: str, takeover: Takeover | None = None, metadata_format: int = 2) -> ExternalKey:
    """An external key whose generations are those labels; the last one encrypts. Its tag is made of its name."""
    last = len(more) + 1
    generations = {
        number: Generation(
            number,
            number,
            "main",
            name,
            state=GenerationState.ACTIVE if number == last else GenerationState.RETIRED,
        )
        for number, name in enumerate((label, *more), start=1)
    }
    tag = key_tag(sha256(label.encode()).digest()[:KEY_TAG_BYTES])
    return ExternalKey(
        label, KeyStatus.ENABLED, generations[last], generations, takeover, tag=tag, metadata_format=metadata_format
    )
