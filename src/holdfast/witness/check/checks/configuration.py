"""Checks of the XKS proxy configuration file and of the URI made from it."""

import ipaddress

from holdfast.witness.check.finding import Check, Level, NotForKms, Refuted, Source, check
from holdfast.witness.check.session import Session
from holdfast.xks.errors import XksError
from holdfast.xks.types import AccessKeyId, SecretAccessKey, UriPathPrefix
from holdfast.xks.uri import MAX_URI_LENGTH

_SUFFIX = "/kms/xks/v1"


@check(
    "CONF-01",
    "The XksProxyUriPath is one that KMS accepts",
    level=Level.MUST,
    source=Source(
        "API operations",
        "The total length of the `XksProxyUriPath` MUST NOT exceed 128 characters and MUST NOT include any "
        "characters other than a through z, A through Z, 0 through 9, slash (/), dash (-) and underscore (\\_).",
    ),
)
def uri_path(session: Session) -> str:
    """Compares the path in the configuration file with the specification's grammar."""
    path = session.endpoint.configuration.uri_path
    if not path.endswith(_SUFFIX):
        raise Refuted(f"{path!r} does not end in {_SUFFIX}")
    try:
        UriPathPrefix.parse(path.removesuffix(_SUFFIX))
    except XksError as error:
        raise Refuted(f"{path!r}: {error.message}") from None
    return f"{path} ({len(path)} characters)"


@check(
    "CONF-02",
    "The access key id has KMS's form",
    level=Level.MUST,
    source=Source(
        "Appendix A",
        "The access key id is a random string of length no less than 20 characters and no more than 30 characters.",
    ),
)
def access_key_id(session: Session) -> str:
    """Compares the id in the configuration file with the specification's grammar."""
    text = session.endpoint.configuration.access_key_id
    try:
        return f"{AccessKeyId.parse(text)} ({len(text)} characters)"
    except XksError as error:
        raise Refuted(f"{text!r}: {error.message}") from None


@check(
    "CONF-03",
    "The secret access key has KMS's form",
    level=Level.MUST,
    source=Source("XKS proxy configuration in AWS KMS console", "43-64 characters, a-z, A-Z, 0-9, /, +, and ="),
)
def secret_access_key(session: Session) -> str:
    """Compares the secret in the configuration file with the specification's grammar; says only its length."""
    raw = session.endpoint.configuration.secret_access_key.reveal()
    try:
        SecretAccessKey.parse(raw.decode())
    except XksError as error:
        raise Refuted(error.message) from None
    return f"{len(raw)} characters"


@check(
    "CONF-04",
    "The endpoint is a domain name",
    level=Level.MUST,
    source=Source(
        "API operations", "The **`<server>`** MUST be a fully qualified domain name (rather than an IP address)"
    ),
)
def domain_name(session: Session) -> str:
    """Compares the host of the endpoint with the forms of an IP address and of a fully qualified name."""
    host = session.endpoint.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if "." not in host:
            raise NotForKms(f"{host} is not fully qualified: KMS cannot resolve it") from None
        return host
    raise NotForKms(f"{host} is an IP address: KMS refuses it as XksProxyUriEndpoint")


@check(
    "CONF-05",
    "The longest URI stays within 256 characters",
    level=Level.MUST,
    source=Source("API operations", "the total URI length MUST NOT exceed 256 characters"),
)
def uri_length(session: Session) -> str:
    """Adds up endpoint, path and the named key ids."""
    keys = session.keys
    ids = [key for key in (keys.key, keys.encrypt_only, keys.decrypt_only, keys.no_use) if key is not None]
    uri = session.endpoint.url + session.endpoint.path("keys", max(ids, key=len, default=""), "metadata")
    if len(uri) > MAX_URI_LENGTH:
        raise Refuted(f"{uri} has {len(uri)} characters")
    room = MAX_URI_LENGTH - len(session.endpoint.url + session.endpoint.path("keys", "", "metadata"))
    return f"{len(uri)} characters; an external key id may have {min(room, 128)} here"


CHECKS: tuple[Check, ...] = (uri_path, access_key_id, secret_access_key, domain_name, uri_length)
