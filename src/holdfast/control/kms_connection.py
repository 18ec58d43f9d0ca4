"""What AWS KMS has to know about a keystore: the console's JSON file, the AWS CLI's line, a curl line to try it."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from holdfast.config.model import Configuration
from holdfast.control.errors import Invalid, NotFound
from holdfast.control.files import replace_file
from holdfast.control.lookup import find_keystore
from holdfast.store.store import Catalog
from holdfast.xks.sigv4 import SERVICE
from holdfast.xks.types import AccessKeyId, ExternalKeyId, Operation, SecretAccessKey, UriPathPrefix
from holdfast.xks.uri import Target, request_path

TRIAL_REGION = "us-east-1"
"""The region that the printed curl line signs for; a keystore accepts any unless it names one."""

PLACEHOLDER = "https://YOUR-PROXY.example.com"
"""Where the public name is not known."""
_ENDPOINT = "Write it as KMS will call it, as in --endpoint https://xks.example.com."
_THIS_HOST = ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost")  # noqa: S104 (compared, not bound)


@dataclass(frozen=True, slots=True)
class KmsConnection:
    """A keystore's path prefix, one of its credentials, and the URL (scheme, host, port) of the proxy.

    KMS reaches a proxy at port 443 only; a load balancer or NAT may stand before another port.
    """

    keystore: str
    prefix: UriPathPrefix
    endpoint: str
    credential: tuple[AccessKeyId, SecretAccessKey]
    region: str | None = None

    def console_file(self) -> bytes:
        """What the KMS console takes, secret included (spec, "XKS proxy configuration in AWS KMS console")."""
        document = {
            "XksProxyUriPath": self.prefix.xks_proxy_uri_path,
            "XksProxyAuthenticationCredential": self._credential(),
        }
        return _pretty(document)

    def credential_file(self) -> bytes:
        """The value of `--xks-proxy-authentication-credential` of the AWS CLI. Holds the secret."""
        return _pretty(self._credential())

    def aws_cli_line(self, credential_file: Path) -> str:
        """The line that creates the custom key store; the secret comes from the file, never from argv."""
        return _shell_lines(
            "aws kms create-custom-key-store",
            f"--custom-key-store-name {shlex.quote(self.keystore)}",
            "--custom-key-store-type EXTERNAL_KEY_STORE",
            "--xks-proxy-connectivity PUBLIC_ENDPOINT",
            f"--xks-proxy-uri-endpoint {shlex.quote(public_endpoint(self.endpoint))}",
            f"--xks-proxy-uri-path {self.prefix.xks_proxy_uri_path}",
            _credential_option(credential_file),
        )

    def aws_cli_update_line(self, credential_file: Path) -> str:
        """The line that gives a key store that KMS has already this credential, as in a rotation."""
        return _shell_lines(
            "aws kms update-custom-key-store",
            "--custom-key-store-id YOUR-KEY-STORE-ID",
            _credential_option(credential_file),
        )

    def curl_file(self) -> bytes:
        """A curl configuration file with the credential, so that it does not show in the list of processes."""
        access_key_id, secret_access_key = self.credential
        return b'user = "%s:%s"\n' % (str(access_key_id).encode(), secret_access_key.reveal())

    def curl_line(self, key: ExternalKeyId, *, curl_file: Path, authority: Path) -> str:
        """A GetKeyMetadata call, signed by curl (7.75 or later)."""
        path = request_path(Target(str(self.prefix), Operation.GET_KEY_METADATA, key))
        metadata = {
            "kmsOperation": "DescribeKey",
            "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
            "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        }
        # One field a line, so that the command fits a terminal of 80 columns.
        body = msgspec.json.format(msgspec.json.encode({"requestMetadata": metadata}), indent=2).decode()
        return _shell_lines(
            f"curl --config {shlex.quote(str(curl_file.absolute()))}",
            f"--cacert {shlex.quote(str(authority.absolute()))}",
            f"--aws-sigv4 aws:amz:{self.region or TRIAL_REGION}:{SERVICE}",
            "--header 'Content-Type: application/json'",
            f"--data {shlex.quote(body)}",
            "--write-out '\\n'",
            shlex.quote(f"{self.endpoint}{path}"),
        )

    def _credential(self) -> dict[str, str]:
        access_key_id, secret_access_key = self.credential
        return {"AccessKeyId": str(access_key_id), "RawSecretAccessKey": secret_access_key.reveal().decode()}


def connection_of(
    catalog: Catalog, keystore: str, endpoint: str, *, access_key_id: str | None = None
) -> KmsConnection:
    """The connection of a keystore with one of its live credentials, by default the newest. Raises NotFound.

    If the secret of that one cannot be read it raises NotFound, and takes no older one: given to KMS instead of the
    newest, and retired afterwards, that would be an outage.
    """
    row = find_keystore(catalog, keystore)
    snapshot = catalog.snapshot()
    served = snapshot.keystores.get(row.prefix.value)
    secrets = {} if served is None else served.credentials
    live = [one.access_key_id for one in catalog.credentials(keystore) if one.retired_at is None]
    issue = f"`holdfast credential issue {keystore}` makes another one."
    if not live:
        raise NotFound(f"the keystore {keystore!r} has no live credential", hint=issue)
    chosen = access_key_id or live[-1]
    if chosen not in live:
        raise NotFound(
            f"the keystore {keystore!r} has no live credential {chosen}", hint=f"It has: {', '.join(live)}."
        )
    if chosen not in secrets:
        reason = next((said for said in (*snapshot.unreadable, *snapshot.bad_rows) if chosen in said), "")
        others = [identity for identity in live if identity in secrets]
        raise NotFound(
            f"the secret of the {'' if access_key_id else 'newest '}credential cannot be read here: {reason}",
            hint=f"Say which other one you mean: --access-key-id {others[-1]}. If the secret is lost:"
            f" `holdfast credential retire {chosen}`."
            if others
            else issue,
        )
    return KmsConnection(keystore, row.prefix, endpoint, (AccessKeyId(chosen), secrets[chosen]), row.region)


def credential_in_use(catalog: Catalog, keystore: str) -> str | None:
    """The live credential that was used last; None if none was.

    Calls of our own use this one, so that they do not make a new credential look as if KMS had taken it up.
    """
    used = [row for row in catalog.credentials(keystore) if row.last_used_at is not None and row.retired_at is None]
    used.sort(key=lambda row: (row.last_used_at, row.access_key_id))
    return used[-1].access_key_id if used else None


def local_endpoint(configuration: Configuration) -> str:
    """The URL of the proxy as seen from its own machine."""
    scheme = "http" if configuration.tls is None else "https"
    listen = configuration.server.listen
    host = "localhost" if listen.host in _THIS_HOST else listen.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listen.port}"


def public_endpoint(endpoint: str) -> str:
    """The `XksProxyUriEndpoint` for a URL of the proxy: HTTPS, a public name, no port; KMS refuses all else.

    PLACEHOLDER where the URL has no public name.
    """
    host = urlsplit(endpoint).hostname or ""
    # Neither localhost nor a plain host name has a dot; an IP address is not a name.
    return f"https://{host}" if "." in host and not _is_address(host) else PLACEHOLDER


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def require_endpoint(url: str) -> str:
    """The URL, if KMS takes it as `XksProxyUriEndpoint`: `https://HOST`, port 443, nothing else. Raises Invalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(f"{url!r} is not a URL", hint=_ENDPOINT) from None
    host = parts.hostname or ""
    rest = parts.path.rstrip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "https" or not host or rest:
        raise Invalid(f"{url!r} is not an endpoint of the form https://HOST", hint=_ENDPOINT)
    if port not in (None, 443):
        raise Invalid(f"{url!r} names the port {port}, and KMS calls port 443 only", hint=_ENDPOINT)
    if "." not in host or _is_address(host):
        raise Invalid(f"{host!r} is not a public host name", hint=_ENDPOINT)
    return f"https://{host}"


def credential_path(console_file: Path) -> Path:
    """The AWS CLI's credential file, beside the console's file."""
    return console_file.with_name(f"{console_file.stem}.credential.json")


def refresh_files(contents: Iterable[tuple[Path, bytes]]) -> None:
    """Writes each secret file that does not hold its content already."""
    for path, content in contents:
        if not path.exists() or path.read_bytes() != content:
            replace_file(path, content)


def _credential_option(file: Path) -> str:
    return f"--xks-proxy-authentication-credential {shlex.quote(f'file://{file.absolute()}')}"


def _pretty(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"


def _shell_lines(*parts: str) -> str:
    return " \\\n    ".join(parts)
