"""The settings file of AWS's sample XKS proxy (aws-samples/aws-kms-xks-proxy, version 3), read as values.

Unknown settings are ignored, as that proxy does.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from holdfast.control.errors import Invalid
from holdfast.hsm.settings import IvMode
from holdfast.reading import read_file
from holdfast.xks.aad import MAX_CIPHERTEXT_METADATA, is_foreign_metadata
from holdfast.xks.encoding import decode_base64
from holdfast.xks.errors import XksError
from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

_PLACEHOLDERS = ("replaceme", "pleasereplace")
"""Placeholders in that proxy's example files, in lower case."""

_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
"""As the catalog takes it."""
_LONGEST_NAME = 63
"""Characters of a keystore's name."""


class SampleServer(msgspec.Struct, frozen=True):
    """`[server]`. Requests must be signed for `region`; `ciphertext_metadata_b64` travels with each ciphertext."""

    region: str
    ip: str = "0.0.0.0"  # noqa: S104 (that proxy listens on every address)
    port: int = 443
    port_http_ping: int = 80
    ciphertext_metadata_b64: str | None = None


class SampleSecurity(msgspec.Struct, frozen=True):
    """`[security]`."""

    is_sigv4_auth_enabled: bool = True
    is_tls_enabled: bool = False
    is_mtls_enabled: bool = False
    secondary_auth: str | None = None


class SampleTls(msgspec.Struct, frozen=True):
    """`[tls]`. Paths are relative to that proxy's working directory."""

    tls_cert_pem: str = ""
    tls_key_pem: str = ""
    mtls_client_ca_pem: str = ""
    mtls_client_dns_name: str = ""


class SampleKeyStore(msgspec.Struct, frozen=True):
    """`[[external_key_stores]]`. An `xks_key_id_set` entry is external key id and CKA_LABEL in one."""

    uri_path_prefix: str
    sigv4_access_key_id: str
    sigv4_secret_access_key: str
    xks_key_id_set: list[str]

    def __repr__(self) -> str:
        return f"<external key store {self.uri_path_prefix!r}>"

    @property
    def is_unused(self) -> bool:
        """Whether it has no credential, as the first key store of that proxy's example files."""
        return not self.sigv4_access_key_id and not self.sigv4_secret_access_key

    @property
    def left_out(self) -> str:
        """Why this key store is not taken over; empty if it is."""
        if self.is_unused:
            return "it has no credential, so KMS cannot be using it"
        if _is_placeholder(self.sigv4_access_key_id) or _is_placeholder(self.sigv4_secret_access_key):
            return "its credential is the placeholder of that proxy's example files, which is public"
        return ""

    @property
    def name(self) -> str:
        """A keystore name made of the prefix, which that proxy's stores are known by."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in self.uri_path_prefix.lower())
        return letters.strip("-")[:_LONGEST_NAME].rstrip("-") or "default"


class SamplePkcs11(msgspec.Struct, frozen=True):
    """`[pkcs11]`. That proxy uses the first slot that has a token."""

    user_pin: str
    module: str = msgspec.field(name="PKCS11_HSM_MODULE")
    session_pool_max_size: int = 30

    def __repr__(self) -> str:
        return f"<pkcs11 {self.module!r}>"


class SampleLogger(msgspec.Struct, frozen=True):
    """`[pkcs11_logger]`: a module between that proxy and the HSM's, which logs each call."""

    library: str = msgspec.field(name="PKCS11_LOGGER_LIBRARY_PATH", default="")


class SampleLimits(msgspec.Struct, frozen=True):
    """`[limits]`."""

    max_plaintext_in_base64: int = 8192
    max_aad_in_base64: int = 16384


class SampleCapabilities(msgspec.Struct, frozen=True):
    """`[hsm_capabilities]`."""

    can_generate_iv: bool
    is_zero_iv_required: bool

    @property
    def iv_mode(self) -> IvMode:
        """Who makes the IV: the proxy; the HSM, into a buffer of zeros; or the HSM, after the tag."""
        if not self.can_generate_iv:
            return IvMode.PROXY
        return IvMode.HSM_IN_PLACE if self.is_zero_iv_required else IvMode.HSM_APPENDED


class SampleSettings(msgspec.Struct, frozen=True):
    """The whole file. `external_key_stores` are also those that are left out; `stores` are the others."""

    server: SampleServer
    security: SampleSecurity
    external_key_stores: list[SampleKeyStore]
    pkcs11: SamplePkcs11
    hsm_capabilities: SampleCapabilities
    tls: SampleTls = SampleTls()
    pkcs11_logger: SampleLogger = SampleLogger()
    limits: SampleLimits = SampleLimits()

    @property
    def stores(self) -> list[SampleKeyStore]:
        """The key stores that KMS can be using."""
        return [store for store in self.external_key_stores if not store.left_out]

    @property
    def pin_is_placeholder(self) -> bool:
        """Whether `user_pin` is empty or still the example file's: enough for a token that needs no login."""
        return not self.pkcs11.user_pin or _is_placeholder(self.pkcs11.user_pin)

    @property
    def library(self) -> str:
        """The HSM vendor's module: if there is a logging module, the one behind it."""
        logged = "pkcs11-logger" in PurePath(self.pkcs11.module).name and self.pkcs11_logger.library
        return self.pkcs11_logger.library if logged else self.pkcs11.module

    @property
    def ciphertext_metadata(self) -> bytes | None:
        """The constant that travels with every ciphertext of that proxy. None: it sends none."""
        encoded = self.server.ciphertext_metadata_b64
        return None if encoded is None else decode_base64(encoded, "ciphertext_metadata_b64")


def read_settings(path: Path, *, variables: Mapping[str, str]) -> SampleSettings:
    """The settings; every value that is taken over has been checked. Raises Invalid, which never holds a secret.

    `variables` is the environment that proxy runs in, which names the module before the file does.
    """
    settings = _overridden(_parse(path), variables)
    for store in settings.stores:
        _check_store(store)
    if not settings.stores:
        reasons = [f"of {store.uri_path_prefix!r}, {store.left_out}" for store in settings.external_key_stores]
        raise Invalid(
            f"{path} has no external key store to take over" + (": " if reasons else "") + "; ".join(reasons),
            hint="Give the file that the proxy in production uses, with its real values.",
        )
    prefixes = [store.uri_path_prefix for store in settings.stores]
    if len(set(prefixes)) < len(prefixes):
        raise Invalid(f"{path} gives one uri_path_prefix to two key stores", hint="Remove the one that is not used.")
    _refuse_sharing(settings.stores)
    _check_region(settings.server.region)
    _check_metadata(settings)
    return settings


def _parse(path: Path) -> SampleSettings:
    try:
        document: Any = tomllib.loads(read_file(path).decode("utf-8-sig"))
        return msgspec.convert(document, SampleSettings)
    except FileNotFoundError:
        raise Invalid(f"there is no file {path}", hint="Name the settings.toml of AWS's sample proxy.") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        # msgspec names types and places, never values.
        raise Invalid(
            f"{path} is not a settings file of AWS's sample proxy: {error}",
            hint="That proxy's file has [server], [security], [[external_key_stores]], [pkcs11], [hsm_capabilities].",
        ) from None


def _overridden(settings: SampleSettings, variables: Mapping[str, str]) -> SampleSettings:
    module = variables.get("PKCS11_HSM_MODULE", settings.pkcs11.module)
    logged = variables.get("PKCS11_LOGGER_LIBRARY_PATH", settings.pkcs11_logger.library)
    return msgspec.structs.replace(
        settings,
        pkcs11=msgspec.structs.replace(settings.pkcs11, module=module),
        pkcs11_logger=SampleLogger(library=logged),
    )


def _check_store(store: SampleKeyStore) -> None:
    where = f"the key store with uri_path_prefix {store.uri_path_prefix!r}"
    try:
        UriPathPrefix.parse(store.uri_path_prefix)
        AccessKeyId.parse(store.sigv4_access_key_id)
        SecretAccessKey.parse(store.sigv4_secret_access_key)
        for key in store.xks_key_id_set:
            ExternalKeyId.parse(key)
    except XksError as error:
        raise Invalid(
            f"{where}: {error.message}", hint="KMS cannot be using this value: correct it, then run this again."
        ) from None


def _refuse_sharing(stores: list[SampleKeyStore]) -> None:
    """Two key stores with one name here would serve each other's callers."""
    for position, store in enumerate(stores):
        for earlier in stores[:position]:
            both = f"the key stores {earlier.uri_path_prefix!r} and {store.uri_path_prefix!r}"
            if store.name == earlier.name:
                raise Invalid(
                    f"{both} would both be the keystore {store.name!r} here",
                    hint="Take one of them out of a copy of the file, run this with the copy, then add the other with"
                    " `holdfast keystore create NAME --prefix PREFIX`.",
                )
            if store.sigv4_access_key_id == earlier.sigv4_access_key_id:
                raise Invalid(
                    f"{both} have one sigv4_access_key_id, which here names one credential of one keystore",
                    hint="Give one of them another credential, in that proxy and in KMS, then run this again.",
                )


def _is_placeholder(value: str) -> bool:
    return any(placeholder in value.lower() for placeholder in _PLACEHOLDERS)


def _check_region(region: str) -> None:
    if not _REGION.fullmatch(region):
        raise Invalid(
            f"[server] region is {region!r}, which is not an AWS region",
            hint="Write it as KMS signs its requests, for example eu-central-1.",
        )


def _check_metadata(settings: SampleSettings) -> None:
    try:
        metadata = settings.ciphertext_metadata
    except XksError as error:
        raise Invalid(f"[server] {error.message}") from None
    if metadata is not None and len(metadata) > MAX_CIPHERTEXT_METADATA:
        raise Invalid(f"[server] ciphertext_metadata_b64 has more than {MAX_CIPHERTEXT_METADATA} bytes")
    if metadata is not None and not is_foreign_metadata(metadata):
        raise Invalid(
            "[server] ciphertext_metadata_b64 looks like Holdfast's own metadata: the two proxies' ciphertexts could"
            " not be distinguished",
            hint="Such a key store cannot be taken over. Re-encrypt its data under another KMS key (`aws kms"
            " re-encrypt`) while that proxy still serves.",
        )
