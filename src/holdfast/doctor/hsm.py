"""Doctor on one HSM: library, token, login, mechanism, IV, and every registered key. Looked at by a fresh process."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from holdfast.config.errors import ConfigurationError
from holdfast.config.hsm import HsmTable, resolve
from holdfast.finding import Finding, Severity, error, note, ok, warning, worst
from holdfast.hsm.faults import HsmFault, LoginRefused
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.inspect import FoundKey, Inspector, MechanismDescription, TokenDescription
from holdfast.hsm.pkcs11.iv import IvOutcome
from holdfast.hsm.pkcs11.profile import Profile, profile_of
from holdfast.hsm.port import KeyLocator
from holdfast.hsm.settings import HsmSettings, LoginMode, TokenSelector
from holdfast.keys.fitness import examine_key, examine_matches
from holdfast.store.reads import KeyRow

_ON = frozenset({"1", "y", "yes", "true"})


def examine_hsm(table: HsmTable, keys: Sequence[KeyRow]) -> Iterator[Finding]:
    """Findings on `[hsm.NAME]` and on the registered keys in it."""
    subject = f"hsm.{table.settings.name}"
    try:
        settings = resolve(table)
    except ConfigurationError as failure:
        yield error(
            "pin-unreadable",
            subject,
            "; ".join(problem.text for problem in failure.problems),
            why="Without its PIN the proxy cannot log in to the token.",
            remedy="Put the PIN where `pin` says, readable by the user that the proxy runs as (mode 0600).",
        )
        return
    try:
        with Inspector(settings) as inspector:
            yield from _Examination(subject, settings, inspector, keys).findings()
    except HsmFault as failure:
        yield error(
            "module-failed",
            subject,
            failure.message,
            why="The proxy loads the same library and would fail in the same way.",
            remedy=(profile_of(settings).set_up if failure.cause else "Check `library` and the `environment` table.")
            + " Then try the vendor's own tools on this host as this user.",
        )


class _Examination:
    """One module, loaded."""

    def __init__(self, subject: str, settings: HsmSettings, inspector: Inspector, keys: Sequence[KeyRow]) -> None:
        self._subject = subject
        self._settings = settings
        self._profile: Profile = profile_of(settings)
        self._inspector = inspector
        self._keys = keys

    def findings(self) -> Iterator[Finding]:
        """In the order in which the proxy itself would stumble; stops where nothing further can be looked at."""
        library = self._inspector.library()
        yield ok("module", self._subject, f"{library.manufacturer}, {library.description} {library.version}, loads")
        yield from self._environment()
        for step in (self._token, self._login):
            found = list(step())
            yield from found
            if worst(found) is Severity.ERROR:
                return
        mechanism = list(self._mechanism())
        yield from mechanism
        yield from self._health_key(encrypts=worst(mechanism) is not Severity.ERROR)
        for row in self._keys:
            yield from self._registered(row)

    def _environment(self) -> Iterator[Finding]:
        value = self._variable("CKNFAST_NO_SYMMETRIC")
        if self._settings.profile == "nshield" and value.lower() in _ON:
            yield warning(
                "nshield-no-symmetric",
                self._subject,
                "CKNFAST_NO_SYMMETRIC is set",
                why="By its name it takes symmetric mechanisms such as AES away from this library.",
                remedy="Remove it from the environment and from /opt/nfast/cknfastrc.",
            )

    def _variable(self, name: str) -> str:
        return self._profile.environment.get(name, os.environ.get(name, ""))

    # ---- token

    def _token(self) -> Iterator[Finding]:
        tokens = self._inspector.tokens()
        matching = [token for token in tokens if _chosen(token, self._settings.token)]
        if len(matching) == 1:
            token = matching[0]
            yield ok("token", self._subject, f"token {_describe(token)}")
        elif matching:
            yield error(
                "token-label-twice",
                self._subject,
                f"{len(matching)} tokens answer to {_wanted(self._settings.token)}:"
                f" {'; '.join(_describe(token) for token in matching)}",
                why="Holdfast does not guess which of them has the keys.",
                remedy=self._one_token_remedy(),
            )
        else:
            shown = "; ".join(_describe(token) for token in tokens) or "none at all"
            yield error(
                "token-not-found",
                self._subject,
                f"no token answers to {_wanted(self._settings.token)}; the library shows {shown}",
                why="The HSM may be disconnected, the card not inserted, or the name another one.",
                remedy="Set `token` to one of those shown, or bring the token back.",
            )

    def _one_token_remedy(self) -> str:
        general = "Choose one by its serial number or slot, as in token = { slot = 123 }."
        if self._settings.profile == "nshield":
            return (
                'Set CKNFAST_LOADSHARING = "1" in its environment table, so that all modules appear as one token'
                f' ("loadshared accelerator"), and choose that by its label. Or: {general}'
            )
        return general

    # ---- mechanism

    def _mechanism(self) -> Iterator[Finding]:
        wanted = self._profile.mechanism
        known = {mechanism.number: mechanism for mechanism in self._inspector.mechanisms()}
        mechanism = known.get(wanted)
        if mechanism is None:
            yield error(
                "mechanism-missing",
                self._subject,
                f"the token does not offer AES-GCM (mechanism {wanted:#x}) among its {len(known)} mechanisms",
                why="Every Encrypt and Decrypt of an external key store is AES-GCM.",
                remedy="Update the HSM's firmware and client software, enable the mechanism in its policy (FIPS and"
                " vendor settings can switch it off), or set `mechanism` if the vendor uses its own number.",
            )
        elif not (mechanism.encrypts and mechanism.decrypts):
            yield error(
                "mechanism-incomplete",
                self._subject,
                f"the token's {mechanism.name} does not {' and '.join(_lacking(mechanism))}",
                why="Every Encrypt and Decrypt of an external key store is AES-GCM.",
                remedy="Look for the HSM's policy on AES-GCM; FIPS settings can restrict it.",
            )
        else:
            yield ok("mechanism", self._subject, f"{mechanism.name} encrypts and decrypts")

    # ---- login

    def _login(self) -> Iterator[Finding]:
        token = self._inspector.token()
        mode = self._profile.login
        if token.login_required and (mode is LoginMode.NONE or self._settings.pin is None):
            how = 'login is "none"' if mode is LoginMode.NONE else "no `pin` is configured"
            yield error(
                "login-required",
                self._subject,
                f"the token requires a login (CKF_LOGIN_REQUIRED), but {how}",
                why="Its keys are private objects: without a login they are not found, and every call fails.",
                remedy="Set `pin = { file = ... }` to the file with the PIN, and leave `login` out or set"
                ' it to "auto".',
            )
            return
        try:
            logged_in = self._inspector.log_in()
        except HsmFault as failure:
            yield self._login_failed(token, failure)
            return
        said = "logged in with the configured PIN" if logged_in else "needs no login"
        yield ok("login", self._subject, said)

    def _login_failed(self, token: TokenDescription, failure: HsmFault) -> Finding:
        if not token.login_required and self._profile.login is LoginMode.USER:
            return error(
                "login-not-supported",
                self._subject,
                f'login is "user", but the token {token.label!r} knows no login: {failure.message}',
                why="nShield's accelerator slots, which hold module-protected keys, refuse C_Login.",
                remedy='Leave `login` out or set it to "none"; CKNFAST_FAKE_ACCELERATOR_LOGIN = "1" is for programs'
                " that cannot do without.",
            )
        if isinstance(failure, LoginRefused):
            return error(
                "login-refused",
                self._subject,
                failure.message,
                why="A wrong PIN counts: tokens lock after a few attempts, so Holdfast does not try again.",
                remedy=_advice(failure, "Give the token's PIN in `pin`, before you start the proxy."),
            )
        return error(
            "login-failed",
            self._subject,
            failure.message,
            why="Without a session the proxy cannot use any key.",
            remedy=_advice(failure, "Look at the HSM's own log and at the sessions that other programs hold."),
        )

    # ---- AES-GCM under the health key

    def _health_key(self, *, encrypts: bool) -> Iterator[Finding]:
        label = self._settings.health_key
        subject = f"{self._subject} health key"
        found = self._inspector.find_keys(label)
        yield from examine_matches(subject, label, found)
        if len(found) != 1:
            return
        yield from examine_key(subject, found[0])
        if not encrypts:
            return
        locator = KeyLocator(label)
        iv = list(self._guarded("iv", lambda: self._iv(locator)))
        yield from iv
        if worst(iv) is Severity.ERROR:
            return
        yield from self._guarded("round-trip", lambda: self._round_trip(locator))
        yield from self._guarded("bad-tag", lambda: self._bad_tag(locator))

    def _guarded(self, code: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from look()
        except HsmFault as failure:
            yield error(
                code,
                self._subject,
                failure.message,
                why="KMS's calls will fail in the same way.",
                remedy=_advice(
                    failure, "Look for the module's limits and policy on AES-GCM, and at the HSM's own log."
                ),
            )

    def _iv(self, locator: KeyLocator) -> Iterator[Finding]:
        mode = self._profile.iv_mode.value
        probe = self._inspector.probe_iv(locator)
        if probe.outcome is IvOutcome.SAFE:
            yield ok("iv", self._subject, f"IVs are fresh (mode {mode})")
            return
        yield error(
            "iv-mode",
            self._subject,
            probe.sentence,
            why=_WHY_IV[probe.outcome],
            remedy="" if probe.outcome is IvOutcome.REPEATED else self._settings_that_work(locator),
        )

    def _settings_that_work(self, locator: KeyLocator) -> str:
        working = self._inspector.working_settings(locator)
        if not working:
            return (
                "Every combination of iv_mode, iv_bits and gcm_parameter_bytes was tried, and none works: look for"
                " the module's parameters of AES-GCM in its documentation, and at `mechanism`."
            )
        fewest = len(working[0].changes(self._profile))
        nearest = [setting for setting in working if len(setting.changes(self._profile)) == fewest]
        lines = " or ".join(f"`{', '.join(setting.changes(self._profile))}`" for setting in nearest)
        return f"All combinations were tried; this works: {lines} in [{self._subject}]. Or choose another `profile`."

    def _round_trip(self, locator: KeyLocator) -> Iterator[Finding]:
        self._inspector.round_trip(locator)
        yield ok("round-trip", self._subject, "AES-GCM with 4,300 bytes of plaintext and 8,192 of AAD and back")

    def _bad_tag(self, locator: KeyLocator) -> Iterator[Finding]:
        bad_tag = self._inspector.probe_bad_tag(locator)
        if bad_tag.ckr == 0:
            yield error(
                "bad-tag-accepted",
                self._subject,
                "the module accepted a wrong authentication tag",
                why="Who can change a ciphertext can change what it decrypts to.",
                remedy="Do not use this module, and ask its vendor.",
            )
        elif bad_tag.expected:
            yield ok("bad-tag", self._subject, f"a wrong tag is {bad_tag.name}, as the profile expects")
        else:
            yield warning(
                "bad-tag",
                self._subject,
                f"a wrong tag is {bad_tag.name}, which the profile {self._settings.profile!r} does not expect",
                why="KMS gets InternalException instead of InvalidCiphertextException for a bad ciphertext.",
                remedy="Check `profile`, and please report the module and this code to the Holdfast project.",
            )

    # ---- registered keys

    def _registered(self, row: KeyRow) -> Iterator[Finding]:
        subject = f"key {row.keystore}/{row.external_key_id}"
        if row.generation > 1:
            subject += f" generation {row.generation}"
        try:
            found = self._inspector.find_keys(row.label, row.cka_id)
        except HsmFault as failure:
            yield error(
                "key-unreadable",
                subject,
                failure.message,
                why="The key cannot be looked at, nor probably used.",
                remedy="Look at the key with the HSM's own tool.",
            )
            return
        command = f"holdfast key rebind {row.keystore} {row.external_key_id}"
        if row.canary is None:
            command += " --without-proof --id HEX"
        yield from examine_matches(subject, row.label, found, rebind=command)
        if len(found) == 1:
            yield from self._examine_key(subject, found[0], row)
            yield from self._canary(subject, row)
            yield from self._label_shared(subject, row)
        if row.label == self._settings.health_key:
            yield error(
                "health-key-registered",
                subject,
                f"{row.label!r} is also the health key of [{self._subject}]",
                why="Probes encrypt with the health key all the time, and those encryptions are not counted.",
                remedy="Make another AES-256 key, and name that as `health_key`.",
            )

    def _examine_key(self, subject: str, key: FoundKey, row: KeyRow) -> Iterator[Finding]:
        for finding in examine_key(subject, key, allow_extractable=self._settings.allow_extractable):
            if finding.code == "key-usage" and row.canary is None:
                yield note(
                    "key-for-tests", subject, finding.what, why="It serves conformance tests; KMS cannot use it."
                )
            else:
                yield finding

    def _canary(self, subject: str, row: KeyRow) -> Iterator[Finding]:
        name = f"{row.keystore} {row.external_key_id}"
        if row.stopped is not None:
            yield error(
                "key-stopped",
                subject,
                f"the key does not encrypt: {row.stopped}",
                why="A proxy stopped it, so that one IV is not used twice. It still decrypts.",
                remedy=f"Read `holdfast docs when-things-fail`, then `holdfast key release {name}`.",
            )
        if row.canary is None:
            yield note(
                "key-without-canary",
                subject,
                "no canary is kept for this key yet",
                why="A proxy makes one at the key's first use. Until then another key under its label is used.",
            )
        elif not self._inspector.keys_that_open(row.canary, row.label, row.cka_id):
            yield error(
                "key-not-the-same",
                subject,
                f"the key {row.label!r} on the token is not the key that was registered: it does not open its canary",
                why="The proxy refuses it: it would encrypt under another key, and could not decrypt anything.",
                remedy=f"Restore the key from the HSM's backup. If it is on the token under another label or CKA_ID,"
                f" `holdfast key rebind {name}` finds it.",
            )
        else:
            yield ok("key-confirmed", subject, "it opens its canary: it is the key that was registered")

    def _label_shared(self, subject: str, row: KeyRow) -> Iterator[Finding]:
        count = len(self._inspector.find_keys(row.label)) if row.cka_id else 1
        if count > 1:
            yield note(
                "key-label-shared",
                subject,
                f"{count} keys of the token have the label {row.label!r}; this one is found by its CKA_ID",
                why="Other tools may take the wrong one.",
            )


def _advice(failure: HsmFault, otherwise: str) -> str:
    return otherwise if failure.cause is None else ckr.advice(failure.cause.ckr)


_UNSAFE: Final = "A repeated IV gives away plaintext and lets others forge ciphertexts: the proxy refuses to start."
_UNUSABLE: Final = "The proxy refuses to start: it could not encrypt, or not decrypt what it encrypts."
_WHY_IV: Final = {
    IvOutcome.NOT_MADE: _UNSAFE,
    IvOutcome.REPEATED: _UNSAFE,
    IvOutcome.REPLACED: _UNUSABLE,
    IvOutcome.WRONG_LENGTH: _UNUSABLE,
    IvOutcome.REFUSED: _UNUSABLE,
    IvOutcome.NOT_DECRYPTED: _UNUSABLE,
}


def _chosen(token: TokenDescription, selector: TokenSelector) -> bool:
    if selector.slot is not None:
        return token.slot == selector.slot
    return token.serial == selector.serial if selector.serial is not None else token.label == selector.label


def _wanted(selector: TokenSelector) -> str:
    if selector.slot is not None:
        return f"slot {selector.slot}"
    return f"the serial {selector.serial!r}" if selector.serial is not None else f"the label {selector.label!r}"


def _describe(token: TokenDescription) -> str:
    name = " ".join(part for part in (token.manufacturer, token.model) if part)
    return (
        f"{token.label!r} in slot {token.slot} (serial {token.serial or 'none'}, {name}, firmware {token.firmware})"
    )


def _lacking(mechanism: MechanismDescription) -> list[str]:
    return [word for word, can in (("encrypt", mechanism.encrypts), ("decrypt", mechanism.decrypts)) if not can]
