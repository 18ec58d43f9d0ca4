"""From AWS's sample proxy to Holdfast: what becomes of each setting, and then doing it.

Ciphertexts of that proxy stay readable: its keys are registered with takeover, so nothing has to be encrypted again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath

from holdfast.config.load import load, parse
from holdfast.config.model import Configuration
from holdfast.control.actions.credentials import IssueCredential
from holdfast.control.actions.keys import RegisterKey
from holdfast.control.actions.keystores import CreateKeystore
from holdfast.control.actor import current_actor
from holdfast.control.catalogs import create_catalog, open_catalog
from holdfast.control.errors import Conflict, HsmRefused, Invalid
from holdfast.control.explanations import Explanation
from holdfast.control.files import PUBLIC_MODE, create_file, private_directory, replace_file
from holdfast.control.keys import examine_found, take_proof
from holdfast.control.runner import Control
from holdfast.finding import Finding, Severity
from holdfast.hsm.pkcs11.inspect import Inspector, TokenDescription
from holdfast.hsm.pkcs11.profile import PROFILES
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.keys.model import Takeover
from holdfast.keys.proof import Proof
from holdfast.setup.aws_sample import SampleKeyStore, SampleSettings
from holdfast.setup.toml_text import toml_string
from holdfast.store.store import Catalog
from holdfast.xks.secret import Secret
from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

HSM_NAME = "main"
"""The `[hsm.NAME]` of a configuration made here."""
_REASON = "holdfast migrate aws-sample"
"""Of its changes, in their records."""
_PROFILE_OF_LIBRARY = {
    "cknfast": "nshield",
    "cryptoki2": "luna",
    "cloudhsm": "cloudhsm",
    "softhsm": "softhsm2",
}
"""By a part of the library's file name."""
_VARIABLES = ("CKNFAST_", "NFAST_", "SOFTHSM2_CONF", "ChrystokiConfigurationPath", "CLOUDHSM_")
"""How the names of the environment variables begin that the vendors' modules read."""
_ALWAYS_LOGS_IN = "CKNFAST_FAKE_ACCELERATOR_LOGIN"
"""nShield's help for programs that log in to tokens without a login. That proxy needs it, Holdfast does not."""
_SESSIONS = 8
"""Holdfast's default, per worker, of which there are two."""


@dataclass(frozen=True, slots=True)
class HsmView:
    """What the HSM has: the token, how a configuration names it, and which labels can be taken over.

    `unusable` has the reason for each label that cannot be, `warnings` what to know about those that can, `proofs`
    what proves each of them later. `copies_outside`: a copy of one of them may exist outside the HSM.
    """

    token: TokenDescription
    selector: TokenSelector
    usable: frozenset[str]
    unusable: Mapping[str, str]
    warnings: tuple[str, ...]
    environment: Mapping[str, str]
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    copies_outside: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """The settings, where they go, and the label of the key for health probes.

    `directory` gets the configuration and the PIN, `state` the catalog and the secrets. Each key may have encrypted
    `prior_encryptions` times already.
    """

    settings: SampleSettings
    source: Path
    directory: Path
    state: Path
    health_key: str
    hsm: HsmView
    prior_encryptions: int = 0

    @property
    def configuration_path(self) -> Path:
        """holdfast.toml."""
        return self.directory / "holdfast.toml"

    @property
    def pin_path(self) -> Path:
        """The user PIN's file."""
        return self.directory / "pin"

    def plan(self, *, now: Callable[[], datetime]) -> Explanation:
        """Everything that will be made, and what has no counterpart here, with the reason.

        Raises Conflict, Invalid, ConfigurationError and CatalogError for what would stop `apply` half-way.
        """
        text = self._configuration_text()
        configuration = parse(text, self.configuration_path)
        if self.configuration_path.exists() and self.configuration_path.read_text() != text:
            raise Conflict(
                f"{self.configuration_path} exists already and has other content",
                hint="Choose another --directory, or move that file away.",
            )
        self._require_no_conflict(configuration, now)
        return Explanation(
            f"Take over {self.source} into {self.directory}:", tuple(self._changes()), tuple(self._left_out())
        )

    def apply(self, *, now: Callable[[], datetime]) -> Iterator[str]:
        """Makes what `plan` showed, saying what was done. An interrupted run is completed by another one."""
        private_directory(self.directory)
        private_directory(self.state)
        if self.pin is not None:
            self._write_pin(self.pin)
        if not self.configuration_path.exists():
            create_file(self.configuration_path, self._configuration_text().encode(), mode=PUBLIC_MODE)
        yield f"Configuration: {self.configuration_path}"
        configuration = load(self.configuration_path)
        with closing(create_catalog(configuration, now=now)) as catalog:
            control = Control(configuration, catalog, actor=current_actor(), now=now)
            for store in self.settings.stores:
                yield from self._keystore(control, store)

    @property
    def pin(self) -> str | None:
        """The user PIN, if the token needs a login."""
        return self.settings.pkcs11.user_pin if self.hsm.token.login_required else None

    @property
    def public_stores(self) -> dict[str, str]:
        """Key stores that are left out although KMS can be using them, by path prefix, with the reason."""
        stores = self.settings.external_key_stores
        return {store.uri_path_prefix: store.left_out for store in stores if store.left_out and not store.is_unused}

    # ---- what would stop it

    def _require_no_conflict(self, configuration: Configuration, now: Callable[[], datetime]) -> None:
        """Of a catalog that exists already, as after an interrupted run. Raises Conflict, CatalogError."""
        file = self.state / "catalog.db"
        if not file.exists() or file.stat().st_size == 0:
            return
        with closing(open_catalog(configuration, now=now)) as catalog:
            for store in self.settings.stores:
                for clash in self._clashes(catalog, store):
                    raise Conflict(f"the catalog in {self.state} {clash}", hint="Choose another --directory.")

    def _clashes(self, catalog: Catalog, store: SampleKeyStore) -> Iterator[str]:
        for row in catalog.keystores():
            if (row.name == store.name) != (row.prefix.value == store.uri_path_prefix):
                yield f"has a keystore {row.name!r} with the path prefix {row.prefix.value!r} already"
        for credential in catalog.credentials(None):
            if credential.access_key_id == store.sigv4_access_key_id and (
                credential.keystore != store.name or credential.retired_at is not None
            ):
                state = "a retired" if credential.retired_at is not None else "a"
                yield f"has {state} credential {credential.access_key_id} of {credential.keystore!r} already"
        for key in catalog.keys(None):
            if (key.keystore, key.external_key_id) not in {(store.name, label) for label in self.labels(store)}:
                continue
            if (key.hsm, key.label) != (HSM_NAME, key.external_key_id) or key.takeover is None:
                yield f"has a key {key.external_key_id} of {key.keystore!r} already, which was not taken over"

    # ---- the plan

    def _changes(self) -> Iterator[str]:
        settings = self.settings
        yield f"configuration {self.configuration_path}, listening on {settings.server.ip}:{settings.server.port}"
        yield (
            f"HSM {HSM_NAME!r}: profile {profile_of(settings)}, library {settings.library},"
            f" token {self.hsm.token.label!r}, serial {self.hsm.token.serial!r}, in slot {self.hsm.token.slot} (the"
            " first, which that proxy uses)"
        )
        if self.hsm.environment:
            yield f"environment of the module, as set here: {', '.join(self.hsm.environment)}"
        if self.pin is None:
            yield "no PIN: the token needs no login"
        else:
            yield f"PIN: from the settings file into {self.pin_path}, readable only by you"
        yield f"health probes with the key {self.health_key!r}"
        for store in settings.stores:
            keys = ", ".join(self.labels(store)) or "none"
            yield (
                f"keystore {store.name!r}: {UriPathPrefix(store.uri_path_prefix).xks_proxy_uri_path}, region"
                f" {settings.server.region}, credential {store.sigv4_access_key_id}, keys {keys}"
            )
        if self.prior_encryptions:
            yield f"each key is counted as having encrypted {self.prior_encryptions:,} times"
        else:
            yield "each key is counted as having encrypted nothing yet; if it has, say --prior-encryptions N"
        yield "every key also decrypts what that proxy encrypted, whatever ciphertext_metadata_b64 it had at the time"

    def _left_out(self) -> Iterator[str]:
        settings = self.settings
        for label, reason in self.hsm.unusable.items():
            yield f"NOT taken over: the key {label}: {reason}."
        for prefix, reason in self.public_stores.items():
            yield f"NOT taken over: the key store {prefix!r}: {reason}."
        for store in settings.external_key_stores:
            if store.is_unused:
                yield f"Skipped: the key store {store.uri_path_prefix!r}: {store.left_out}."
        yield from self.hsm.warnings
        yield "KMS needs no change if this proxy answers at the same host name: path, credential and keys stay."
        yield f"{self.source} holds the PIN and the secret access keys in the clear: delete it when you are done."
        if not settings.security.is_tls_enabled:
            yield "That proxy uses plain HTTP, so this one will too: something in front of it must terminate TLS."
        if not settings.security.is_sigv4_auth_enabled:
            yield "is_sigv4_auth_enabled = false has no counterpart: Holdfast always requires the signature."
        if settings.security.secondary_auth:
            yield (
                f"secondary_auth = {settings.security.secondary_auth!r} is not translated: until you write the same"
                " in Cedar and name the file in [authorization], KMS's key policies alone decide who can use a key."
            )
        if settings.library != settings.pkcs11.module:
            yield f"The logging module {settings.pkcs11.module} is left out: Holdfast logs each C_ failure itself."
        limits = settings.limits
        yield (
            f"[limits] ({limits.max_plaintext_in_base64} and {limits.max_aad_in_base64} characters) has no"
            " counterpart: Holdfast takes the specification's sizes and caps the body as a whole."
        )
        yield "[tracing] and [server.tcp_keepalive] have no counterpart: there is one JSON event per request."
        yield "One deadline replaces session_pool_timeout_milli, session_eager_close and context_read_timeout_milli."
        if settings.security.is_mtls_enabled:
            yield (
                "mtls_client_dns_name becomes client_subject, which here is the common name of the caller's"
                " certificate: compare the two before the change."
            )

    def labels(self, store: SampleKeyStore) -> list[str]:
        """Those of the store's keys that are taken over."""
        return sorted(set(store.xks_key_id_set) & self.hsm.usable)

    # ---- applying it

    def _write_pin(self, pin: str) -> None:
        content = pin.encode() + b"\n"
        if not self.pin_path.exists() or self.pin_path.read_bytes() != content:
            replace_file(self.pin_path, content)

    def _keystore(self, control: Control, store: SampleKeyStore) -> Iterator[str]:
        catalog = control.catalog
        if all(row.name != store.name for row in catalog.keystores()):
            prefix = UriPathPrefix.parse(store.uri_path_prefix).value
            make = CreateKeystore(keystore=store.name, prefix=prefix, region=self.settings.server.region)
            control.do(make, reason=_REASON)
        if all(row.access_key_id != store.sigv4_access_key_id for row in catalog.credentials(store.name)):
            identity = AccessKeyId.parse(store.sigv4_access_key_id).value
            control.do(
                IssueCredential(keystore=store.name, access_key_id=identity),
                reason=_REASON,
                given=SecretAccessKey.parse(store.sigv4_secret_access_key),
            )
        yield f"Keystore: {store.name!r} with the credential {store.sigv4_access_key_id}"
        registered = {row.external_key_id for row in catalog.keys(store.name)}
        takeover = Takeover(self.settings.ciphertext_metadata)
        for label in self.labels(store):
            if label not in registered:
                # The sample's settings say which key stores share a key.
                stores = tuple(other.name for other in self.settings.stores if other.name != store.name)
                register = RegisterKey(
                    keystore=store.name,
                    external_key_id=ExternalKeyId.parse(label).value,
                    hsm=HSM_NAME,
                    label=label,
                    proof=self.hsm.proofs[label],
                    takeover=takeover,
                    prior_encryptions=self.prior_encryptions,
                    share_with=stores,
                )
                control.do(register, reason=_REASON)
            yield f"Key: {label} of {store.name!r}"

    def _configuration_text(self) -> str:
        settings = self.settings
        host = f"[{settings.server.ip}]" if ":" in settings.server.ip else settings.server.ip
        lines = [
            "# Made by `holdfast migrate aws-sample`; yours to change. `holdfast config explain` explains every key.",
            "",
            "[server]",
            f"listen = {toml_string(f'{host}:{settings.server.port}')}",
            *(
                [f"health_listen = {toml_string(f'{host}:{settings.server.port_http_ping}')}"]
                if self._pings()
                else []
            ),
            "",
            *self._tls_lines(),
            *self._catalog_lines(),
            f"[hsm.{HSM_NAME}]",
            f"profile = {toml_string(profile_of(settings))}",
            f"library = {toml_string(settings.library)}",
            f"token = {{ {self._token_entry()} }}",
            *(['pin = { file = "pin" }'] if self.pin is not None else []),
            f"health_key = {toml_string(self.health_key)}",
            *([f"sessions = {self._sessions()}"] if self._sessions() != _SESSIONS else []),
            *(["allow_extractable = true"] if self.hsm.copies_outside else []),
            *self._iv_lines(),
            *self._environment_lines(),
        ]
        return "\n".join(lines) + "\n"

    def _catalog_lines(self) -> Iterator[str]:
        if self.state != self.directory:
            state = self.state.absolute()
            yield "[catalog]"
            yield f"url = {toml_string(f'sqlite:///{state}/catalog.db')}"
            yield f"secrets_directory = {toml_string(f'{state}/secrets')}"
            yield ""

    def _token_entry(self) -> str:
        selector = self.hsm.selector
        if selector.slot is not None:
            return f"slot = {selector.slot}"
        if selector.serial is not None:
            return f"serial = {toml_string(selector.serial)}"
        return f"label = {toml_string(selector.label or '')}"

    def _sessions(self) -> int:
        """That proxy's limit is for one process; here two workers share it."""
        return max(1, min(_SESSIONS, self.settings.pkcs11.session_pool_max_size // 2))

    def _pings(self) -> bool:
        """That proxy answers GET /ping over plain HTTP on a separate port, but only if it uses TLS."""
        server = self.settings.server
        return self.settings.security.is_tls_enabled and server.port_http_ping != server.port

    def _tls_lines(self) -> Iterator[str]:
        security, tls = self.settings.security, self.settings.tls
        if not security.is_tls_enabled:
            return
        yield "[tls]"
        yield f"certificate = {toml_string(self._existing(tls.tls_cert_pem, 'tls_cert_pem'))}"
        yield f"private_key = {toml_string(self._existing(tls.tls_key_pem, 'tls_key_pem'))}"
        if security.is_mtls_enabled:
            yield f"client_ca = {toml_string(self._existing(tls.mtls_client_ca_pem, 'mtls_client_ca_pem'))}"
            yield f"client_subject = {toml_string(tls.mtls_client_dns_name)}"
        yield ""

    def _existing(self, named: str, setting: str) -> str:
        """That proxy's paths start at its working directory, which is not in the settings file."""
        places = (Path.cwd(), self.source.absolute().parent, self.source.absolute().parent.parent)
        for place in places:
            if named and (place / named).is_file():
                return str(place / named)
        raise Invalid(
            f"[tls] {setting} names {named!r}, which is not there",
            hint="Run this in the directory in which that proxy runs, or give the full path in the settings file.",
        )

    def _iv_lines(self) -> Iterator[str]:
        mode = self.settings.hsm_capabilities.iv_mode
        if mode is not PROFILES[profile_of(self.settings)].iv_mode:
            yield f"iv_mode = {toml_string(mode.value)}"

    def _environment_lines(self) -> Iterator[str]:
        if self.hsm.environment:
            pairs = (f"{name} = {toml_string(value)}" for name, value in self.hsm.environment.items())
            yield f"environment = {{ {', '.join(pairs)} }}"


def profile_of(settings: SampleSettings) -> str:
    """The profile for the library's vendor; `generic` for one that is not known."""
    name = PurePath(settings.library).name.lower()
    return next((profile for part, profile in _PROFILE_OF_LIBRARY.items() if part in name), "generic")


def look_at_hsm(settings: SampleSettings, health_key: str, *, variables: Mapping[str, str]) -> HsmView:
    """The token that proxy uses, which is the first, and its keys. Raises HsmFault, HsmRefused, Invalid.

    `variables` is the environment that proxy runs in: what the vendor's module reads of it is kept.
    """
    environment = {
        name: value
        for name, value in sorted(variables.items())
        if name.startswith(_VARIABLES) and name != _ALWAYS_LOGS_IN
    }
    labels = sorted({label for store in settings.stores for label in store.xks_key_id_set})
    if health_key in labels:
        raise Invalid(
            f"{health_key!r} is a key that KMS uses",
            hint="Name another with --health-key: probes must not count against a key of KMS.",
        )
    # The selector plays no part in listing the tokens.
    with Inspector(_hsm(settings, TokenSelector(slot=0), health_key, environment)) as inspector:
        tokens = inspector.tokens()
    token = _first_token(tokens, settings)
    unusable, warnings, proofs, copies_outside = {}, [], {}, False
    with Inspector(_hsm(settings, TokenSelector(slot=token.slot), health_key, environment)) as inspector:
        _require_health_key(examine_found(health_key, health_key, inspector.find_keys(health_key)))
        for label in labels:
            found = inspector.find_keys(label)
            findings = examine_found(label, label, found, allow_extractable=True)
            refusals = [finding.what for finding in findings if finding.severity is Severity.ERROR]
            if refusals:
                unusable[label] = "; ".join(refusals)
            else:
                warnings += [f"Warning: {f.what}. {f.why}" for f in findings if f.severity is Severity.WARNING]
                proofs[label] = take_proof(inspector, found[0])
                copies_outside |= any(f.code == "key-may-leave" for f in findings)
    return HsmView(
        token,
        selector_of(token, tokens),
        frozenset(labels) - set(unusable),
        unusable,
        tuple(warnings),
        environment,
        proofs,
        copies_outside,
    )


def _first_token(tokens: Sequence[TokenDescription], settings: SampleSettings) -> TokenDescription:
    """The token that proxy uses. Raises HsmRefused where that cannot be what it uses in production."""
    environment = (
        "If that proxy's unit sets variables for the HSM's library (`systemctl show xks-proxy --property"
        " Environment`), give this command the same: SOFTHSM2_CONF=PATH, CKNFAST_...=1."
    )
    if not tokens:
        raise HsmRefused(
            f"{settings.library} shows no token",
            hint=f"Connect the HSM, or insert the card, then run this again. {environment}",
        )
    first = tokens[0]
    # An nShield accelerator works without the flag; a token without a label is really new.
    if not first.initialized and not first.label:
        others = ", ".join(f"{token.label!r} in slot {token.slot}" for token in tokens[1:]) or "none"
        raise HsmRefused(
            f"the first token of {settings.library}, in slot {first.slot}, is not initialised, and that proxy always"
            f" uses the first; other tokens: {others}",
            hint=environment,
        )
    if first.login_required and settings.pin_is_placeholder:
        raise Invalid(
            f"[pkcs11] user_pin is empty or a placeholder, and the token {first.label!r} requires a login",
            hint="Give the file that the proxy in production uses, with its real values.",
        )
    return first


def _hsm(settings: SampleSettings, token: TokenSelector, health_key: str, environment: dict[str, str]) -> HsmSettings:
    pin = None if settings.pin_is_placeholder else Secret.of_text(settings.pkcs11.user_pin)
    return HsmSettings(
        "migrate", profile_of(settings), settings.library, token, health_key, pin=pin, environment=environment
    )


def _require_health_key(findings: list[Finding]) -> None:
    refusals = [finding.what for finding in findings if finding.severity is Severity.ERROR]
    if refusals:
        raise HsmRefused(
            f"health probes need an AES-256 key of their own: {'; '.join(refusals)}",
            hint="Make one with the HSM's tool (nShield: generatekey pkcs11 type=AES size=256"
            " plainname=holdfast-health), or name one with --health-key.",
        )


def selector_of(token: TokenDescription, tokens: Sequence[TokenDescription]) -> TokenSelector:
    """What singles the token out among `tokens`: its label, else its serial, else its slot."""
    if token.label and [other.label for other in tokens].count(token.label) == 1:
        return TokenSelector(label=token.label)
    if token.serial and [other.serial for other in tokens].count(token.serial) == 1:
        return TokenSelector(serial=token.serial)
    return TokenSelector(slot=token.slot)
