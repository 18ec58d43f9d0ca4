"""A signed request as it arrives, and its verification; what tests change about either."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from holdfast.xks import sigv4
from holdfast.xks.types import AccessKeyId, SecretAccessKey

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
PATH = b"/test/kms/xks/v1/keys/key-1/encrypt"
BODY = b'{"requestMetadata":{}}'
REGION = "us-east-2"
ACCESS_KEY_ID = AccessKeyId.parse("MUBSXM6K3KMXHN6RRCXI")
SECRET = SecretAccessKey.parse("VU6W2byoiBrhDqNGbx703oL0syCAmhlQgwNUT123456")
CREDENTIAL = sigv4.Credential(ACCESS_KEY_ID, SECRET, REGION)
CREDENTIALS = {str(ACCESS_KEY_ID): SECRET}
Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Signed:
    """One request. The `with_` methods return a changed copy; nothing is signed again."""

    headers: tuple[Header, ...]
    method: str = "POST"
    path: bytes = PATH
    body: bytes = BODY
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def by_us(cls, **changes: Any) -> Self:
        """Signed by `sigv4.sign`; `changes` are its arguments."""
        arguments: dict[str, Any] = {
            "host": "proxy.example.com",
            "body": BODY,
            "credential": CREDENTIAL,
            "now": NOW,
        } | changes
        path = arguments.pop("path", PATH)
        headers = sigv4.sign("POST", path, **arguments)
        return cls(received(headers.items()), path=path, body=arguments["body"])

    def verify(self, **options: Any) -> AccessKeyId:
        """What `sigv4.verify` says; `options` are its keyword arguments."""
        arguments: dict[str, Any] = {"credentials": CREDENTIALS, "region": None, "now": NOW} | options
        return sigv4.verify(self.method, self.path, headers=self.headers, body=self.body, **arguments)

    def value(self, name: bytes) -> bytes:
        """The value of the one header of that name."""
        (value,) = (value for key, value in self.headers if key == name)
        return value

    def with_header(self, name: bytes, value: bytes | None) -> Self:
        """With the header replaced or added; None takes it away."""
        kept = tuple(header for header in self.headers if header[0] != name)
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def with_another(self, name: bytes, value: bytes) -> Self:
        """With one more header, whatever its name."""
        return replace(self, headers=(*self.headers, (name, value)))

    def with_authorization(self, old: bytes, new: bytes) -> Self:
        """With a part of the Authorization header replaced, which must be there."""
        value = self.value(b"authorization")
        assert old in value
        return self.with_header(b"authorization", value.replace(old, new))


def received(headers: Iterable[tuple[str, str]]) -> tuple[Header, ...]:
    """Headers as the server hands them on: lower-case names, bytes."""
    return tuple((name.lower().encode(), value.encode()) for name, value in headers)
