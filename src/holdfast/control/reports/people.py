"""Reports on people: who may do what, who could do something alone, and who still has access."""

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from hashlib import sha256

from holdfast.control.authorization import AUTHORIZATION, permitted_kinds
from holdfast.control.reports.document import NONE, Cell, Report, Table
from holdfast.control.reports.source import Source
from holdfast.control.roles import Role
from holdfast.control.rules import APPROVAL, Needed, Rules
from holdfast.store.governance import OperatorRow, operators, rules_of

_ASSERTED = (
    "Names of those who ask for changes are the operating system's, as asserted. Approvals are proven by signatures."
)
_GROUPS = ("stopping", "custody", "administration")


def duties(source: Source) -> Report:
    """Separation of duties: operators by what they may do, and conflicts."""
    state = source.state
    enrolled = operators(state)
    permitted = {one.name: permitted_kinds(state, one) for one in enrolled}
    rules = Rules.parse(rules_of(state, APPROVAL) or "")
    matrix = [
        (
            one.name,
            ", ".join(one.roles) or NONE,
            *(_amount(permitted[one.name][group]) for group in _GROUPS),
            "yes" if _can_approve(one, rules) else "no",
        )
        for one in enrolled
    ]
    roles = [
        (
            role.value,
            ", ".join(one.name for one in enrolled if role in one.roles) or "nobody",
            _holders(role, enrolled),
        )
        for role in Role
    ]
    approvals = [
        (
            rule.name,
            ", ".join(rule.actions),
            ", ".join(rule.keystores),
            "nobody" if rule.approvals is None else str(rule.approvals),
            "" if rule.approvals is None else _standing(rule.approvals, enrolled),
        )
        for rule in rules.rule
    ]
    conflicts = [*_conflicts(enrolled, permitted, rules)]
    return source.report(
        "duties",
        "Separation of duties",
        "Who may ask for what and approve what, and what could one person do alone?",
        Table(
            "conflicts",
            "Conflicts",
            ("Who", "What", "Why it matters"),
            conflicts,
            "None was found by the tests that this report makes.",
        ),
        Table(
            "operators",
            "Operators",
            ("Operator", "Roles", "Stops", "Manages keys", "Administers", "Can approve"),
            matrix,
            "Nobody is enrolled.",
        ),
        Table("roles", "Roles", ("Role", "Who has it", "Remark"), roles, ""),
        Table(
            "rules",
            "Rules of approval",
            ("Rule", "Changes", "Key stores", "Needs", "Can it be met?"),
            approvals,
            "There are none: no change needs another person.",
        ),
        limits=(
            _ASSERTED,
            (
                "Who can write the catalog's database or the configuration, or use the HSM's tools, stands outside"
                " of this."
            ),
            (
                "Nobody approves a change that he asked for: Holdfast refuses it. That two names are two"
                " persons it does"
                " not know."
            ),
            "Roles outside of Holdfast (AWS, HSM, database, operating system) are not known to it.",
        ),
    )


def access(source: Source) -> Report:
    """Who and what has access, and when it was last used."""
    state = source.state
    changes = source.changes
    asked = {change.actor.name: change.time for change in changes}
    approved = {one.name: one.time for change in changes for one in change.approvals}
    enrolled = operators(state)
    people = [
        (
            one.name,
            ", ".join(one.roles) or NONE,
            "none: cannot approve" if one.public_key is None else _fingerprint(one.public_key),
            one.enrolled_at,
            asked.get(one.name, "never"),
            approved.get(one.name, "never"),
        )
        for one in enrolled
    ]
    names = {one.name for one in enrolled}
    strangers = [(name, at) for name, at in sorted(asked.items()) if name not in names]
    credentials = [
        (
            row.access_key_id,
            row.keystore,
            row.secret_ref.partition(":")[0],
            row.created_at,
            (source.now - row.created_at).days,
            row.last_used_at or "never",
            row.retired_at or "live",
        )
        for row in state.credentials(None)
    ]
    return source.report(
        "access",
        "Access review",
        "Which people and credentials have access, since when, and do they still use it?",
        Table(
            "operators",
            "Operators",
            ("Operator", "Roles", "SSH key", "Enrolled", "Last asked for a change", "Last approved one"),
            people,
            "Nobody is enrolled: whoever may write the catalog may do everything.",
        ),
        Table(
            "strangers",
            "Who changed something and is not enrolled",
            ("Name", "Last change"),
            strangers,
            "Nobody.",
        ),
        Table(
            "credentials",
            "Credentials of AWS KMS",
            ("Access key id", "Key store", "Kept in", "Issued", "Age in days", "Last used", "Retired"),
            credentials,
            "There is no credential.",
        ),
        Table("policies", "Policies in force", ("What", "Where", "SHA-256"), [*_policies(source)], ""),
        Table(
            "review",
            "Review",
            ("To be confirmed", "By", "On"),
            [(text, "", "") for text in _TO_CONFIRM],
            "",
        ),
        limits=(
            _ASSERTED,
            "Last changes are those that the catalog records: its own beginning, or the last import, is the horizon.",
            "Who can log in to the hosts, the database and the HSM is not known to Holdfast.",
        ),
    )


_TO_CONFIRM = (
    "Each operator still works here, and needs each role",
    "Each live credential is known to exactly one key store in AWS",
    "Who changed something without being enrolled is known",
    "The policies in force are those that were approved",
)


def _policies(source: Source) -> Iterator[tuple[Cell, ...]]:
    authorization = source.configuration.authorization
    yield (
        "Who may use a key",
        NONE if authorization is None else str(authorization.policies),
        NONE if authorization is None else _digest(source.policy_text),
    )
    for what, name in (("What a role may do", AUTHORIZATION), ("What needs approval", APPROVAL)):
        text = rules_of(source.state, name)
        shipped = "that of Holdfast" if name == AUTHORIZATION else NONE
        yield what, "the catalog" if text is not None else shipped, NONE if text is None else _digest(text)


def _digest(text: str | None) -> str | None:
    return None if text is None else sha256(text.encode()).hexdigest()


def _conflicts(
    enrolled: list[OperatorRow], permitted: dict[str, dict[str, list[str]]], rules: Rules
) -> Iterator[tuple[Cell, ...]]:
    if not enrolled:
        yield "everybody", "nobody is enrolled", "whoever may write the catalog may make every change, alone"
    if not any(rule.approvals for rule in rules.rule):
        yield "everybody", "no rule asks for another person", "each change is made by one person"
    for one in enrolled:
        may = permitted[one.name]
        if may["custody"] and may["administration"]:
            yield one.name, "manages keys and decides who may", "can give himself what is missing"
        needs = [rule.name for rule in rules.rule if rule.approvals is not None and _named(one, rule.approvals)]
        if (may["custody"] or may["administration"]) and needs:
            yield one.name, f"asks for changes and approves others: {', '.join(needs)}", "two of them approve in turn"
        if one.public_key is None and Role.APPROVER in one.roles:
            yield one.name, "is an approver without an SSH key", "cannot approve"
    for rule in rules.rule:
        if rule.approvals is not None and (why := _standing(rule.approvals, enrolled)) != _MET:
            yield "nobody", f"the rule {rule.name!r}: {why}", "such changes cannot be made"


_MET = "yes, whoever asks"


def _standing(needed: Needed, enrolled: list[OperatorRow]) -> str:
    """Whether the others are enough, whoever asks."""
    persons = _persons(enrolled)
    if not needed.met_by(persons):
        return "no: not enough persons with an SSH key have these roles"
    alone = [
        name for name in persons if not needed.met_by({other: r for other, r in persons.items() if other != name})
    ]
    return f"not where {' or '.join(alone)} asks" if alone else _MET


def _persons(enrolled: list[OperatorRow]) -> dict[str, frozenset[Role]]:
    known = {role.value: role for role in Role}
    return {
        one.name: frozenset(known[role] for role in one.roles if role in known)
        for one in enrolled
        if one.public_key is not None
    }


def _can_approve(one: OperatorRow, rules: Rules) -> bool:
    wanted = any(rule.approvals is not None and _named(one, rule.approvals) for rule in rules.rule)
    return wanted and one.public_key is not None


def _named(one: OperatorRow, needed: Needed) -> bool:
    """Whether one of the operator's roles counts for it."""
    return any(role in one.roles for way in needed.ways() for role in way)


def _holders(role: Role, enrolled: list[OperatorRow]) -> str:
    holders = sum(role in one.roles for one in enrolled)
    return ("nobody has it", "one person alone has it")[holders] if holders < 2 else ""  # noqa: PLR2004 (two persons)


def _amount(actions: list[str]) -> str:
    return f"{len(actions)} kinds of change" if actions else "nothing"


def _fingerprint(public_key: str) -> str:
    """As OpenSSH shows it."""
    kind, _, text = public_key.partition(" ")
    try:
        raw = a2b_base64(text.encode(), strict_mode=True)
    except ValueError:
        return f"{kind}, damaged"
    return f"{kind} SHA256:{b2a_base64(sha256(raw).digest(), newline=False).decode().rstrip('=')}"
