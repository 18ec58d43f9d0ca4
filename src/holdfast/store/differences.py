"""Says what changed in the catalog, one line per change, for the log of each worker that takes it over."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from holdfast.keys.model import ExternalKey, Generation, Keystore
from holdfast.store.view import Difference, View

_MOST = 20
"""Lines per new version. More is a restored or another catalog: its first lines say so."""


class Notices:
    """Passes lines on to `on_notice`."""

    def __init__(self, on_notice: Callable[[str], None]) -> None:
        self.notice = on_notice

    def differences(
        self, before: Mapping[int, Keystore], view: View, keys: Sequence[Difference], *, since: int
    ) -> None:
        """What is different in a view since the version `since`."""
        lines = [*_keystores(before, view.keystores), *_keys(keys, {**before, **view.keystores})]
        for line in lines[:_MOST]:
            self.notice(f"{line} (catalog version {since} -> {view.version})")
        if len(lines) > _MOST:
            self.notice(f"... and {len(lines) - _MOST} more changes (catalog version {since} -> {view.version})")


def _keystores(before: Mapping[int, Keystore], after: Mapping[int, Keystore]) -> Iterator[str]:
    for identity in sorted(before.keys() | after.keys()):
        old, new = before.get(identity), after.get(identity)
        if old is new:
            continue
        if old is None or new is None:
            keystore = old or new
            yield f"keystore {keystore.name}: {'removed' if new is None else 'added'}"  # type: ignore[union-attr] # one is there
            continue
        said = f"keystore {new.name}"
        if old.name != new.name:
            yield f"{said}: name was {old.name}"
        if (old.blocked, old.blocked_until) != (new.blocked, new.blocked_until):
            yield f"{said}: {_state(old)} -> {_state(new)}"
        if old.prefix != new.prefix:
            yield f"{said}: path {old.prefix.xks_proxy_uri_path} -> {new.prefix.xks_proxy_uri_path}"
        if old.region != new.region:
            yield f"{said}: region {old.region or 'any'} -> {new.region or 'any'}"
        for access_key_id in sorted(new.credentials.keys() - old.credentials.keys()):
            yield f"{said}: credential {access_key_id} is live"
        for access_key_id in sorted(old.credentials.keys() - new.credentials.keys()):
            yield f"{said}: credential {access_key_id} is refused from now on"


def _keys(differences: Sequence[Difference], keystores: Mapping[int, Keystore]) -> Iterator[str]:
    for one in differences:
        keystore = keystores.get(one.keystore)
        said = f"key {'?' if keystore is None else keystore.name}/{one.external_key_id}"
        if one.before is None or one.after is None:
            yield f"{said}: {'removed or refused' if one.after is None else 'added'}"
            continue
        yield from (f"{said}: {line}" for line in _key(one.before, one.after))


def _key(old: ExternalKey, new: ExternalKey) -> Iterator[str]:
    if (old.status, old.enabled_until) != (new.status, new.enabled_until):
        until = "" if new.enabled_until is None else f" until {new.enabled_until:%Y-%m-%d %H:%M:%S} UTC"
        yield f"{old.status} -> {new.status}{until}"
    if old.pinned_to != new.pinned_to:
        yield f"serves {' and '.join(new.pinned_to)} only" if new.pinned_to else "serves every KMS key"
    if old.takeover != new.takeover:
        yield f"{'opens' if new.takeover else 'does not open'} ciphertexts of AWS's sample proxy"
    if old.tag != new.tag:
        yield "has another tag: what it encrypted in format 2 until now is refused"
    if old.metadata_format != new.metadata_format:
        yield f"makes ciphertexts of format {new.metadata_format}, no longer of {old.metadata_format}"
    for number in sorted(old.generations.keys() | new.generations.keys()):
        before, after = old.generations.get(number), new.generations.get(number)
        if before is None or after is None:
            yield f"generation {number} removed" if after is None else f"generation {number} added: {after.state}"
        else:
            yield from (f"generation {number} {line}" for line in _generation(before, after))


def _generation(old: Generation, new: Generation) -> Iterator[str]:
    if _place(old) != _place(new):
        yield f"is found as {_place(new)}, no longer as {_place(old)}"
    if old.token_serial != new.token_serial:
        yield f"is in the token {new.token_serial or 'of any serial number'}"
    if old.state != new.state:
        yield f"is {new.state}, no longer {old.state}"
    if old.canary != new.canary:
        yield "has its first canary" if old.canary is None else "has another canary"
    if old.stopped != new.stopped:
        yield "is released" if new.stopped is None else f"is stopped: {new.stopped}"


def _place(generation: Generation) -> str:
    cka_id = "" if generation.cka_id is None else f", CKA_ID {generation.cka_id.hex()}"
    return f"label {generation.label!r}{cka_id} of the HSM {generation.hsm!r}"


def _state(keystore: Keystore) -> str:
    if not keystore.blocked:
        return "open"
    return (
        "blocked"
        if keystore.blocked_until is None
        else f"blocked until {keystore.blocked_until:%Y-%m-%d %H:%M:%S} UTC"
    )
