"""Who calls: the profiles of an AWS shared credentials file, and the SigV4 signature of each request."""

import configparser
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from holdfast.reading import read_file
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.settings import Settings
from holdfast.xks.secret import Secret

MAX_SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<id>[\w+=,.@-]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)"
    r"/(?P<service>[a-z0-9-]+)/aws4_request, *SignedHeaders=(?P<headers>[a-z0-9!#$%&'*+.^_`|~;-]+), *"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A profile: what signs, and what request metadata says of whom it signs for."""

    access_key_id: str
    secret_access_key: Secret
    principal_arn: str
    session_token: str | None = None
    via_service: str | None = None
    source_vpc: str | None = None
    source_vpce: str | None = None


def load_callers(settings: Settings) -> dict[str, Caller]:
    """The profiles of the credentials file by access key id. Raises ValueError, OSError or configparser.Error.

    A profile's name is its IAM user's, unless it has a `principal_arn`; `via_service`, `source_vpc` and
    `source_vpce` are passed on as request metadata. AWS's clients ignore these four.
    """
    path = settings.credentials
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(read_file(path).decode("utf-8-sig"), str(path))
    callers = {}
    for name in parser.sections():
        profile = parser[name]
        try:
            access_key_id, secret = profile["aws_access_key_id"], profile["aws_secret_access_key"]
        except KeyError as error:
            raise ValueError(f"profile {name} of {path} has no {error.args[0]}") from None
        callers[access_key_id] = Caller(
            access_key_id,
            Secret.of_text(secret),
            profile.get("principal_arn", f"arn:{settings.partition.name}:iam::{settings.account}:user/{name}"),
            profile.get("aws_session_token"),
            profile.get("via_service"),
            profile.get("source_vpc"),
            profile.get("source_vpce"),
        )
    if not callers:
        raise ValueError(f"{path} has no profile")
    return callers


def create_credentials(path: Path) -> None:
    """Writes a credentials file with one random profile, `default`, readable by its owner only.

    Raises FileExistsError.
    """
    path.touch(mode=0o600, exist_ok=False)
    access_key_id = "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
    path.write_text(
        "# Made by `holdfast kms`: good for that local KMS only.\n[default]\n"
        f"aws_access_key_id = {access_key_id}\naws_secret_access_key = {secrets.token_urlsafe(30)}\n",
        encoding="utf-8",
    )


def authenticate(
    headers: Mapping[str, str], body: bytes, *, callers: Mapping[str, Caller], region: str, now: datetime
) -> Caller:
    """Who signed a POST to `/`. Raises KmsException.

    `headers` have lower-case names. botocore's signer signs the same headers again, and the signatures are compared.
    """
    match = _AUTHORIZATION.fullmatch(_header(headers, "authorization", "MissingAuthenticationTokenException"))
    if match is None:
        raise KmsException("IncompleteSignatureException", "The Authorization header is not that of SigV4.")
    amz_date = _header(headers, "x-amz-date", "IncompleteSignatureException")
    if match["service"] != "kms" or match["region"] != region or match["date"] != amz_date[:8]:
        raise KmsException(
            "InvalidSignatureException",
            f"Credential should be scoped to region '{region}', service 'kms' and the date of X-Amz-Date.",
        )
    _require_recent(amz_date, now)
    caller = callers.get(match["id"])
    if caller is None or caller.session_token != headers.get("x-amz-security-token"):
        raise KmsException("UnrecognizedClientException", "The security token included in the request is invalid.")
    expected = _signature(headers, body, caller=caller, signed=match["headers"].split(";"), region=region)
    if not hmac.compare_digest(expected, match["signature"]):
        raise KmsException(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
    return caller


def _header(headers: Mapping[str, str], name: str, refusal: str) -> str:
    if name not in headers:
        raise KmsException(refusal, f"The request has no {name} header.")
    return headers[name]


def _require_recent(amz_date: str, now: datetime) -> None:
    try:
        sent = datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise KmsException("IncompleteSignatureException", "X-Amz-Date is not YYYYMMDD'T'HHMMSS'Z'.") from None
    if abs(now - sent) > MAX_SKEW:
        edge = now + MAX_SKEW if sent > now else now - MAX_SKEW
        wrong, side, sign = ("not yet current", "later", "+") if sent > now else ("expired", "earlier", "-")
        raise KmsException(
            "InvalidSignatureException",
            f"Signature {wrong}: {amz_date} is now {side} than {edge:%Y%m%dT%H%M%SZ} "
            f"({now:%Y%m%dT%H%M%SZ} {sign} 5 min.)",
        )


def _signature(headers: Mapping[str, str], body: bytes, *, caller: Caller, signed: list[str], region: str) -> str:
    if not {"host", "x-amz-date", "x-amz-target"}.issubset(signed) or not set(signed).issubset(headers):
        raise KmsException("IncompleteSignatureException", "host, x-amz-date and x-amz-target must be signed.")
    # botocore would take the body's digest from this header unseen.
    if headers.get("x-amz-content-sha256", digest := sha256(body).hexdigest()) != digest:
        raise KmsException("InvalidSignatureException", "x-amz-content-sha256 is not that of the body.")
    request = AWSRequest(
        "POST", f"http://{headers['host']}/", headers={name: headers[name] for name in signed}, data=body
    )
    request.context["timestamp"] = headers["x-amz-date"]
    signer = _Signer(Credentials(caller.access_key_id, caller.secret_access_key.reveal().decode()), "kms", region)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    return signer.signature(to_sign, request)


class _Signer(SigV4Auth):
    """Signs every header that it is given. botocore's own signer leaves out headers such as User-Agent."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        """The headers of the request, which are those that SignedHeaders names."""
        signed = HTTPHeaders()
        for name, value in request.headers.items():
            signed[name.lower()] = value
        return signed
