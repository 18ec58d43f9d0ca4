"""AWS Signature Version 4 as Appendix A of the spec uses it: sign and verify, with the clock as an argument."""

import hmac
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Self
from weakref import WeakKeyDictionary

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import AccessKeyId, SecretAccessKey

SERVICE = "kms-xks-proxy"
"""Spec, Appendix A: the service indicator."""
MAX_SKEW = timedelta(minutes=5)
"""Spec, Appendix A, Task 4: how far x-amz-date may lie in the past or the future."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_REQUIRED_HEADERS = frozenset((b"host", b"x-amz-date"))
_AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256 +"
    rb"Credential=(?P<id>[A-Z2-7]{20,30})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,32})"
    rb"/kms-xks-proxy/aws4_request *, *"
    rb"SignedHeaders=(?P<headers>[a-z0-9-]+(?:;[a-z0-9-]+)*) *, *"
    rb"Signature=(?P<signature>[0-9a-f]{64})"
)
_AMZ_DATE = re.compile(rb"[0-9]{8}T(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}Z")
"""`fromisoformat` judges the day; from Python 3.14 it would take 24:00 for the next one."""
_SPACES = re.compile(rb" +")
_NOBODY = (
    AccessKeyId("UNKNOWNACCESSKEYID234567"),
    SecretAccessKey.parse("NoRequestIsEverSignedWithThisSecretAccessKey"),
)

_SCOPES = 16
"""Dates and regions for which the signing keys of one secret are kept."""
_SIGNING_KEYS: WeakKeyDictionary[SecretAccessKey, dict[tuple[str, str], hmac.HMAC]] = WeakKeyDictionary()
"""By date and region. A secret that is retired takes its signing keys along."""

Headers = Iterable[tuple[bytes, bytes]]
"""Lower-case names and values as received, in order."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A proxy authentication credential and the region it signs for."""

    access_key_id: AccessKeyId
    secret_access_key: SecretAccessKey
    region: str


@dataclass(frozen=True, slots=True)
class Authorization:
    """A parsed Authorization header."""

    access_key_id: AccessKeyId
    date: str
    region: str
    signed_headers: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def parse(cls, value: bytes) -> Self:
        """Raises XksError(AUTHENTICATION_FAILED)."""
        match = _AUTHORIZATION.fullmatch(value)
        if match is None:
            raise _refusal("the Authorization header is not that of SigV4 for kms-xks-proxy")
        names = tuple(match["headers"].split(b";"))
        if list(names) != sorted(set(names)):
            raise _refusal("SignedHeaders is not sorted, or names a header twice")
        return cls(
            AccessKeyId(match["id"].decode()),
            match["date"].decode(),
            match["region"].decode(),
            names,
            match["signature"],
        )


def verify(  # noqa: PLR0913 (a request has these parts; grouping them would copy each one)
    method: str,
    path: bytes,
    *,
    headers: Headers,
    body: bytes,
    credentials: Mapping[str, SecretAccessKey],
    region: str | None,
    now: datetime,
) -> AccessKeyId:
    """The access key id that signed the request (spec, Appendix A, Tasks 1 to 4).

    `path` is the raw path without a query. `region` restricts the scope's region unless None. Raises
    XksError(AUTHENTICATION_FAILED); an unknown access key id takes the same time and gets the same answer as a wrong
    signature.
    """
    received = list(headers)
    authorization = Authorization.parse(_only(received, b"authorization"))
    amz_date = _recent_date(received, authorization, now)
    access_key_id, secret_access_key = (
        authorization.access_key_id,
        credentials.get(authorization.access_key_id.value),
    )
    known = secret_access_key is not None
    if secret_access_key is None:
        access_key_id, secret_access_key = _NOBODY
    canonical = _canonical_request(
        method, path, headers=_canonical_headers(received, authorization.signed_headers), body=body
    )
    scope = (authorization.date, authorization.region)
    cached = _SIGNING_KEYS.get(secret_access_key, {}).get(scope)
    key = _derived(secret_access_key, *scope) if cached is None else cached
    expected = _signature(key, canonical, amz_date=amz_date, region=authorization.region)
    right = hmac.compare_digest(expected, authorization.signature)
    if not (right and known):
        if cached is not None:
            # A refusal takes the same time whether or not the access key id is known.
            _derived(_NOBODY[1], *scope)
        raise _refusal("the signature does not match, or the access key id is not known")
    if region is not None and authorization.region != region:
        raise _refusal("the credential scope names another region than this key store allows")
    if cached is None:
        _remember(secret_access_key, scope, key)
    return access_key_id


def sign(  # noqa: PLR0913 (a request has these parts)
    method: str, path: bytes, *, host: str, body: bytes, credential: Credential, now: datetime
) -> dict[str, str]:
    """The headers to send: Host, X-Amz-Date and Authorization. `now` is timezone-aware."""
    amz_date = now.astimezone(UTC).strftime(_TIMESTAMP)
    headers = f"host:{host}\nx-amz-date:{amz_date}\n".encode()
    names = b"host;x-amz-date"
    canonical = _canonical_request(method, path, headers=(headers, names), body=body)
    key = _signing_key(credential.secret_access_key, (amz_date[:8], credential.region))
    signature = _signature(key, canonical, amz_date=amz_date, region=credential.region).decode()
    scope = f"{credential.access_key_id}/{amz_date[:8]}/{credential.region}/{SERVICE}/aws4_request"
    return {
        "Host": host,
        "X-Amz-Date": amz_date,
        "Authorization": (f"{_ALGORITHM} Credential={scope}, SignedHeaders={names.decode()}, Signature={signature}"),
    }


def _refusal(reason: str) -> XksError:
    return XksError(ErrorName.AUTHENTICATION_FAILED, reason)


def _only(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    values = [value for key, value in headers if key == name]
    if len(values) != 1:
        raise _not_once(name, len(values))
    return values[0]


def _not_once(name: bytes, times: int) -> XksError:
    return _refusal(f"the request has {times} {name.decode()} headers where it needs exactly one")


def _recent_date(headers: list[tuple[bytes, bytes]], authorization: Authorization, now: datetime) -> str:
    raw = _only(headers, b"x-amz-date")
    if not _AMZ_DATE.fullmatch(raw):
        raise _refusal("x-amz-date is not of the form YYYYMMDDTHHMMSSZ")
    amz_date = raw.decode()
    if authorization.date != amz_date[:8]:
        raise _refusal("the credential scope's date is not that of x-amz-date")
    try:
        # strptime takes five times as long.
        sent = datetime.fromisoformat(amz_date)
    except ValueError:
        raise _refusal("x-amz-date is not a date") from None
    if abs(now - sent) > MAX_SKEW:
        raise _refusal("x-amz-date lies more than 5 minutes from this proxy's clock")
    return amz_date


def _canonical_headers(headers: list[tuple[bytes, bytes]], signed: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    if not _REQUIRED_HEADERS.issubset(signed):
        raise _refusal("host and x-amz-date must be signed")
    # This runs before authentication: looking through all headers for each signed name would let 16 KB of
    # them stop the event loop for 90 ms.
    values = dict(headers)
    counted: Mapping[bytes, int] = {} if len(values) == len(headers) else Counter(name for name, _ in headers)
    for name in signed:
        times = counted.get(name, int(name in values))
        if times != 1:
            raise _not_once(name, times)
    lines = [name + b":" + _SPACES.sub(b" ", values[name].strip(b" \t")) + b"\n" for name in signed]
    return b"".join(lines), b";".join(signed)


def _canonical_request(method: str, path: bytes, *, headers: tuple[bytes, bytes], body: bytes) -> bytes:
    # Spec, Appendix A, Task 1: the query is always empty. The path holds only unreserved characters and
    # slashes, and no relative segment (`ExternalKeyId`), so it is its own canonical form.
    payload_hash = sha256(body).hexdigest().encode()
    return b"\n".join((method.encode(), path, b"", *headers, payload_hash))


def _signature(key: hmac.HMAC, canonical: bytes, *, amz_date: str, region: str) -> bytes:
    scope = f"{amz_date[:8]}/{region}/{SERVICE}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{amz_date}\n{scope}\n{sha256(canonical).hexdigest()}"
    # A copy of a keyed HMAC costs half of `hmac.digest`, which also lets go of the GIL, and so of the CPU.
    signature = key.copy()
    signature.update(to_sign.encode())
    return signature.hexdigest().encode()


def _signing_key(secret_access_key: SecretAccessKey, scope: tuple[str, str]) -> hmac.HMAC:
    key = _SIGNING_KEYS.get(secret_access_key, {}).get(scope)
    if key is None:
        key = _derived(secret_access_key, *scope)
        _remember(secret_access_key, scope, key)
    return key


def _derived(secret_access_key: SecretAccessKey, date: str, region: str) -> hmac.HMAC:
    key = b"AWS4" + secret_access_key.reveal()
    for part in (date, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")


def _remember(secret_access_key: SecretAccessKey, scope: tuple[str, str], key: hmac.HMAC) -> None:
    """Only after a signature was verified: what strangers send must not fill the cache."""
    keys = _SIGNING_KEYS.setdefault(secret_access_key, {})
    while len(keys) >= _SCOPES:
        del keys[next(iter(keys))]
    keys[scope] = key
