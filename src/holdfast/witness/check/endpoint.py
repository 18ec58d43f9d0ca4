"""What to check: the endpoint's URL, and the XKS proxy configuration file with its path and credential."""

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from holdfast.reading import read_file
from holdfast.xks.secret import Secret

HTTPS_PORT = 443


class UsageError(Exception):
    """What was asked for cannot be done. `hint` says what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ProxyConfiguration:
    """The XKS proxy configuration file (spec, "XKS proxy configuration in AWS KMS console"), as written.

    Its values may break the spec's grammar: that is for a check to say.
    """

    uri_path: str
    access_key_id: str
    secret_access_key: Secret

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UsageError, whose message never holds a value of the file."""
        try:
            return cls._of(json.JSONDecoder().decode(read_file(path, pipe=True).decode("utf-8-sig")))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}", _CONFIG_HINT) from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path} is not an XKS proxy configuration file", _CONFIG_HINT) from None

    @classmethod
    def _of(cls, value: dict[str, Any]) -> Self:
        credential = value["XksProxyAuthenticationCredential"]
        texts = (value["XksProxyUriPath"], credential["AccessKeyId"], credential["RawSecretAccessKey"])
        if not all(isinstance(text, str) and text.isascii() for text in texts):
            raise ValueError("not text")
        uri_path, access_key_id, secret = texts
        return cls(uri_path, access_key_id, Secret.of_text(secret))


_CONFIG_HINT = (
    'it is the JSON that the KMS console reads: {"XksProxyUriPath": "/.../kms/xks/v1", '
    '"XksProxyAuthenticationCredential": {"AccessKeyId": "...", "RawSecretAccessKey": "..."}}'
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`XksProxyUriEndpoint` and the configuration for it."""

    host: str
    port: int
    configuration: ProxyConfiguration

    @classmethod
    def parse(cls, url: str, configuration: ProxyConfiguration) -> Self:
        """Raises UsageError."""
        hint = "give the XksProxyUriEndpoint, such as https://xks.example.com"
        try:
            parts = urlsplit(url)
            port = parts.port or HTTPS_PORT
            host = (parts.hostname or "").encode("ascii").decode()
        except ValueError:
            raise UsageError(f"{url!r} is not a URL", hint) from None
        if parts.scheme != "https" or not host:
            raise UsageError(f"{url!r} is not an https:// URL: KMS speaks only HTTPS", hint)
        if parts.path.rstrip("/") not in ("", configuration.uri_path) or parts.query or parts.fragment:
            raise UsageError(f"the path of {url!r} is not the XksProxyUriPath of the configuration file", hint)
        return cls(host, port, configuration)

    @property
    def host_header(self) -> str:
        """The `Host` that a client sends: the port only when it is not HTTPS's own."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The endpoint as it would be configured in KMS."""
        return f"https://{self.host_header}"

    def path(self, *segments: str) -> str:
        """A request path below the XksProxyUriPath."""
        return "/".join((self.configuration.uri_path, *segments))


def is_loopback(address: str) -> bool:
    """Whether a numeric address stays on this machine."""
    return ipaddress.ip_address(address).is_loopback
