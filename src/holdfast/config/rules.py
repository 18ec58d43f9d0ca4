"""What the keys of a file must agree on, beyond what each may be."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from holdfast.config import lines
from holdfast.config.kinds import Refused, nearest
from holdfast.config.listeners import Address
from holdfast.config.outlets import Destination
from holdfast.config.storage import EncryptionLimits

Conflict = tuple[tuple[lines.Path, ...], str]
"""The keys that do not agree, and a sentence. It stands on the line of the first that is in the file."""

_LISTENERS = ("listen", "health_listen", "metrics_listen")
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared, not bound)


def conflicts(document: Mapping[str, Any]) -> Iterator[Conflict]:
    """The conflicts of a document whose keys may be of any type: where one of them is wrong itself, ignore its."""
    server = _table(document, "server")
    if server.get("require_policies") is True and "authorization" not in document:
        text = "`require_policies` in [server] is true, and there is no table [authorization]"
        yield (("server", "require_policies"),), text
    yield from _same_address(server)
    for name in ("tls", "health_tls", "metrics_tls"):
        tls, why = _table(document, name), "mutual TLS needs both, or neither of them"
        yield from _half_of_a_pair(name, tls, ("client_ca", "client_subject"), why)
        listener = name.replace("_tls", "_listen")
        if name != "tls" and name in document and "server" in document and listener not in server:
            yield ((name,), ("server",)), f"[{name}] is for `{listener}` in [server], which is missing"
    yield from _limits_out_of_order(_table(document, "encryption_limit"))
    yield from _rotation_after_the_stop(_table(document, "rotation"), _table(document, "encryption_limit"))
    hsms = {name: hsm for name, hsm in _table(document, "hsm").items() if isinstance(hsm, dict)}
    for name, hsm in hsms.items():
        yield from _login_against_pin(name, hsm)
    for name, outlet in _table(document, "outlet").items():
        if isinstance(outlet, dict):
            yield from _outlet(name, outlet)
    if hsms and all(hsm.get("standby") is True for hsm in hsms.values()):
        yield (("hsm", next(iter(hsms)), "standby"),), "every HSM has `standby = true`: no HSM is left that serves"
    audit = _table(document, "audit")
    yield from _half_of_a_pair("audit", audit, ("control_directory", "control_name"), "the control log needs both")
    yield from _half_of_a_pair("audit", audit, ("witness_url", "witness_key"), "a witness needs both")
    yield from _same_log(audit)
    if "audit" in document and "key_file" not in audit:
        yield from _no_hsm_to_sign(audit, [name for name, hsm in hsms.items() if hsm.get("standby") is not True])


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    content = document.get(name)
    return content if isinstance(content, dict) else {}


def _same_address(server: Mapping[str, Any]) -> Iterator[Conflict]:
    addresses = {}
    for name in _LISTENERS:
        with suppress(Refused):
            addresses[name] = Address.parse(server.get(name), Path())
    for earlier, name in combinations(addresses, 2):
        if _overlap(addresses[name], addresses[earlier]):
            text = f"`{name}` in [server] is the address of `{earlier}` already: use another port"
            yield (("server", name), ("server", earlier)), text


def _overlap(one: Address, other: Address) -> bool:
    """Whether both cannot be bound. `localhost` is not looked up: it is compared as text."""
    return one.port == other.port and (one.host == other.host or bool(_ANYWHERE & {one.host, other.host}))


def _half_of_a_pair(table: str, content: Mapping[str, Any], pair: tuple[str, str], why: str) -> Iterator[Conflict]:
    for name, other in (pair, pair[::-1]):
        if name in content and other not in content:
            yield ((table, name),), f"`{name}` in [{table}] without `{other}`: {why}"


def _limits_out_of_order(limits: Mapping[str, Any]) -> Iterator[Conflict]:
    counts = {name: limits.get(name, getattr(EncryptionLimits(), name)) for name in ("warn", "alarm", "stop")}
    numbers = [(name, count) for name, count in counts.items() if type(count) is int]
    for (low, low_count), (high, high_count) in pairwise(numbers):
        if low_count > high_count:
            text = f"`{high}` in [encryption_limit] is {high_count}, below `{low}`, which is {low_count}"
            yield (("encryption_limit", high), ("encryption_limit", low)), text


def _rotation_after_the_stop(rotation: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Conflict]:
    due, stop = rotation.get("encryptions"), limits.get("stop", EncryptionLimits().stop)
    if type(due) is int and type(stop) is int and due >= stop:
        text = f"`encryptions` in [rotation] is {due}, and at {stop} a key is stopped already (`stop` in"
        yield (("rotation", "encryptions"), ("encryption_limit", "stop")), f"{text} [encryption_limit])"


def _login_against_pin(name: str, hsm: Mapping[str, Any]) -> Iterator[Conflict]:
    places = (("hsm", name, "login"), ("hsm", name, "pin"))
    if hsm.get("login") == "user" and "pin" not in hsm:
        yield places, f'`login` in [hsm.{name}] is "user", which needs a `pin`'
    if hsm.get("login") == "none" and "pin" in hsm:
        yield places[::-1], f'`pin` in [hsm.{name}] is never used, because `login` is "none"'


def _outlet(name: str, outlet: Mapping[str, Any]) -> Iterator[Conflict]:
    why = "a client certificate needs both"
    for key, other in (("certificate", "private_key"), ("private_key", "certificate")):
        if key in outlet and other not in outlet:
            yield (("outlet", name, key),), f"`{key}` in [outlet.{name}] without `{other}`: {why}"
    with suppress(Refused):
        to = Destination.parse(outlet.get("to"), Path())
        for key in ("ca", "certificate", "private_key"):
            if key in outlet and not to.uses_tls:
                text = f"`{key}` in [outlet.{name}] is never used, because `to` is {to}, which is not TLS"
                yield (("outlet", name, key), ("outlet", name, "to")), text
    if outlet.get("events") == "none" and outlet.get("changes") is False:
        yield (("outlet", name),), f"[outlet.{name}] sends neither events nor changes: remove it"


def _same_log(audit: Mapping[str, Any]) -> Iterator[Conflict]:
    for name, other in (("directory", "control_directory"), ("name", "control_name")):
        one, two = audit.get(name), audit.get(other)
        if isinstance(one, str) and isinstance(two, str) and Path(one) == Path(two):
            places = (("audit", other), ("audit", name))
            yield places, f"`{other}` in [audit] is `{name}` already: each log has its own"


def _no_hsm_to_sign(audit: Mapping[str, Any], hsms: list[str]) -> Iterator[Conflict]:
    name = audit.get("hsm")
    if name is None and len(hsms) > 1:
        yield (("audit",),), f"`hsm` in [audit] is missing: say which HSM signs, of {', '.join(hsms)}"
    if name is not None and hsms and name not in hsms:
        yield (("audit", "hsm"),), f"`hsm` in [audit] is {str(name)!r}{nearest(str(name), hsms, '{!r}')}"
