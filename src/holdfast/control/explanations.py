"""Plans: what a change to something that exists will do, and whom it will reach, before it is done."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.store.reads import CredentialRow, KeyRow, KeystoreRow
from holdfast.xks.aad import NEWEST_FORMAT

RECENTLY = timedelta(days=1)
"""A credential used within this time is taken to be in use."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What will be changed, and what that means for those who use it."""

    title: str
    changes: tuple[str, ...]
    impact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """The catalog's credentials and keys, to say who is reached."""

    credentials: Sequence[CredentialRow]
    keys: Sequence[KeyRow]
    now: datetime

    def last_use(self, keystore: str) -> str:
        """When a request was last signed with a credential of the keystore, in words.

        That was KMS, or `doctor` or `prove`, which use the credentials too.
        """
        used = [row.last_used_at for row in self.credentials if row.keystore == keystore and row.last_used_at]
        return f"last called {moment(max(used), self.now)}" if used else "never called"

    def key_count(self, keystore: str) -> int:
        """External keys of the keystore."""
        return len({row.external_key_id for row in self.keys if row.keystore == keystore})

    def live(self, keystore: str) -> list[CredentialRow]:
        """The keystore's credentials that are not retired."""
        return [row for row in self.credentials if row.keystore == keystore and row.retired_at is None]


def explain_block(keystores: Sequence[KeystoreRow], usage: Usage | None, until: datetime | None) -> Explanation:
    """Blocking keystores, to the time `until` or without end. `usage` None: it is not known."""
    return Explanation(
        f"Block {_count(keystores)}{'' if until is None else f' until {until:%Y-%m-%d %H:%M:%S} UTC'}:",
        tuple(_keystore_line(row, usage) for row in keystores),
        (
            "Within a second each proxy that reads the catalog answers their requests with InvalidStateException.",
            "AWS shows KMSInvalidStateException. A service that has data keys in memory can still use these.",
            "Nothing is deleted. `holdfast keystore unblock` undoes it.",
            *(() if until is None else ("At that time, by each machine's own clock, they are open again.",)),
        ),
    )


def explain_unblock(keystores: Sequence[KeystoreRow], usage: Usage | None) -> Explanation:
    """Unblocking keystores. `usage` None: it is not known."""
    return Explanation(
        f"Unblock {_count(keystores)}:",
        tuple(_keystore_line(row, usage) for row in keystores),
        ("Within a second every enabled key of these keystores encrypts and decrypts for KMS again.",),
    )


def explain_disable(key: KeyRow, usage: Usage) -> Explanation:
    """Disabling an external key."""
    return Explanation(
        f"Disable the key {key.external_key_id} of the keystore {key.keystore!r}:",
        (f"status ENABLED becomes DISABLED; the keystore was {usage.last_use(key.keystore)}",),
        (
            "Within a second each proxy that reads the catalog answers its requests with InvalidStateException.",
            "GetKeyMetadata says DISABLED.",
            "AWS shows KMSInvalidStateException for the KMS key that uses it. Other keys are not affected.",
            "Nothing is deleted. `holdfast key enable` undoes it.",
        ),
    )


def explain_enable(key: KeyRow, usage: Usage, until: datetime | None) -> Explanation:
    """Enabling an external key, to the time `until` or without end."""
    return Explanation(
        f"Enable the key {key.external_key_id} of the keystore {key.keystore!r}:",
        (
            f"status {key.status} becomes ENABLED; the keystore was {usage.last_use(key.keystore)}",
            *(() if until is None else (f"at {until:%Y-%m-%d %H:%M:%S} UTC it is disabled again",)),
        ),
        ("Within a second the key encrypts and decrypts for KMS again.",),
    )


def explain_release(key: KeyRow) -> Explanation:
    """Letting a stopped key encrypt again."""
    return Explanation(
        f"Release the key {key.external_key_id} of the keystore {key.keystore!r}:",
        (f"it is stopped: {key.stopped}",),
        (
            "Within a second every proxy encrypts with it again.",
            "If the HSM repeats an IV under this key, plaintexts and the authentication key are given away.",
            "Release it only when you know why it was stopped, and that this cannot happen again.",
        ),
    )


def explain_rebind(key: KeyRow, *, label: str, cka_id: bytes | None, proven: bool) -> Explanation:
    """Finding an external key's HSM key by another label or CKA_ID."""
    unproven = "WARNING: nothing proves that it is the same key. If it is not, what was encrypted stays unreadable."
    return Explanation(
        f"Bind the key {key.external_key_id} of the keystore {key.keystore!r}:",
        (f"from {_place(key.label, key.cka_id)} to {_place(label, cka_id)}, in [hsm.{key.hsm}]",),
        (
            "The object opens the canary of this key: it is the same key." if proven else unproven,
            "Running proxies use it within a second. On nShield, run `systemctl reload holdfast` first.",
        ),
    )


def _place(label: str, cka_id: bytes | None) -> str:
    return f"label {label!r} and " + ("any CKA_ID" if cka_id is None else f"CKA_ID {cka_id.hex()}")


def explain_share(keystore: str, external_key_id: str, others: Sequence[str]) -> Explanation:
    """Letting a keystore use an HSM key that other keystores use."""
    names = ", ".join(others)
    return Explanation(
        f"Register the key {external_key_id} of the keystore {keystore!r} under an HSM key that is used already:",
        (f"the HSM key then serves {keystore} and {names}",),
        (
            f"Ciphertexts of format 1 open in {keystore} and in {names}; those of format 2 in one of them only.",
            "For format 1 only the AAD that AWS KMS sends stands between two AWS accounts.",
            "Their encryptions count together against the 2^32 that one key may make.",
        ),
    )


def explain_unregister(generations: Sequence[KeyRow], encryptions: int) -> Explanation:
    """Forgetting an external key, of which these are the generations."""
    key = generations[0]
    again = f"--tag {key.tag.hex()}" + (f" --prior-encryptions {encryptions}" if encryptions else "")
    impact = [
        "Its requests get KeyNotFoundException within a second. Delete the KMS key that uses it in AWS.",
        f"The HSM keeps the key. To register it again, so that what it encrypted opens, say {again}.",
    ]
    if len(generations) > 1:
        impact.append(
            "WARNING: a key is registered again with one generation. What the others encrypted then opens no more."
        )
    return Explanation(
        f"Unregister the key {key.external_key_id} of the keystore {key.keystore!r}:",
        tuple(f"generation {row.generation}, label {row.label!r} of the HSM {row.hsm!r}" for row in generations),
        tuple(impact),
    )


def explain_upgrade(keys: Sequence[KeyRow]) -> Explanation:
    """Letting keys make ciphertexts of the newest format."""
    return Explanation(
        f"Upgrade {len(keys)} key{'' if len(keys) == 1 else 's'} to the newest format of ciphertext metadata:",
        tuple(
            f"{row.keystore}/{row.external_key_id}: format {row.metadata_format} becomes {NEWEST_FORMAT}"
            for row in keys
        ),
        (
            "New ciphertexts then open under their own external key only. Older ones open as before.",
            "An older Holdfast cannot read new ciphertexts: there is no way back to it after this.",
        ),
    )


def explain_change_keystore(
    keystore: KeystoreRow, usage: Usage, *, prefix: str | None, region: str | None
) -> Explanation:
    """Moving a keystore to another path prefix, or to another region; None: as it is."""
    changes = [] if prefix is None else [f"URI path {keystore.prefix.xks_proxy_uri_path} becomes {prefix}"]
    changes += [] if region is None else [f"region {keystore.region or 'any'} becomes {region or 'any'}"]
    update = "Give KMS the new path: `aws kms update-custom-key-store --xks-proxy-uri-path`."
    impact = [] if prefix is None else [update]
    impact += [] if region is None else ["Requests that are signed for another region are refused within a second."]
    return Explanation(
        f"Change the keystore {keystore.name!r} ({usage.last_use(keystore.name)}):", tuple(changes), tuple(impact)
    )


def explain_delete_keystore(keystore: KeystoreRow) -> Explanation:
    """Removing an empty keystore."""
    return Explanation(
        f"Delete the keystore {keystore.name!r}:",
        (f"its URI path {keystore.prefix.xks_proxy_uri_path} and its retired credentials",),
        ("KMS's requests to it are refused within a second. It has no keys and no live credentials.",),
    )


def explain_retire(credential: CredentialRow, usage: Usage) -> Explanation:
    """Retiring a credential."""
    now = usage.now
    others = [row for row in usage.live(credential.keystore) if row.access_key_id != credential.access_key_id]
    return Explanation(
        f"Retire the credential {credential.access_key_id} of the keystore {credential.keystore!r}:",
        (f"issued {moment(credential.created_at, now)}, last used {moment(credential.last_used_at, now)}",),
        tuple(_retire_impact(credential, others, now)),
    )


def _retire_impact(credential: CredentialRow, others: list[CredentialRow], now: datetime) -> Iterable[str]:
    yield "Requests signed with it get AuthenticationFailedException within a second. It cannot be brought back."
    if credential.last_used_at is not None and now - credential.last_used_at < RECENTLY:
        yield (
            "WARNING: it was used within the last 24 hours, probably by KMS (`doctor` and `prove` count too). Give"
            " KMS another credential first (`aws kms update-custom-key-store`) and wait until this one stays unused."
        )
    if not others:
        yield (
            "WARNING: it is the only live credential of this keystore: KMS will not be able to call it at all."
            f" Issue another one first: `holdfast credential issue {credential.keystore}`."
        )
    elif all(row.last_used_at is None for row in others):
        yield "WARNING: none of the keystore's other credentials has ever been used: KMS may not know them yet."


def moment(at: datetime | None, now: datetime) -> str:
    """A time as a person says it: `never`, `3 minutes ago`."""
    if at is None:
        return "never"
    seconds = int((now - at).total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = seconds // length
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _count(keystores: Sequence[KeystoreRow]) -> str:
    return f"the keystore {keystores[0].name!r}" if len(keystores) == 1 else f"{len(keystores)} keystores"


def _keystore_line(row: KeystoreRow, usage: Usage | None) -> str:
    state = "blocked" if row.blocked else "open"
    if usage is None:
        return f"{row.name} (now {state})"
    keys = usage.key_count(row.name)
    return f"{row.name} ({keys} key{'' if keys == 1 else 's'}, now {state}, {usage.last_use(row.name)})"
