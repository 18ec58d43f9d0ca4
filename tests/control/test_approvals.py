"""Two persons: what needs approval waits for a signature by another person's key, over exactly this plan."""

import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.control.conftest import Clock
from tests.waiting import PATIENCE

from holdfast.control.actions import AnyAction
from holdfast.control.actions.keystores import BlockKeystores, ChangeKeystore, UnblockKeystores
from holdfast.control.actions.operators import EnrolOperator, RemoveOperator, SetRules
from holdfast.control.authorization import SCHEMA, shipped_policies
from holdfast.control.errors import AdminError, Conflict, Denied, Invalid, Outdated
from holdfast.control.plan import Plan
from holdfast.control.roles import Role
from holdfast.control.rules import Rules, bank_rules
from holdfast.control.runner import Control, Done, Pending
from holdfast.control.signatures import NAMESPACE, parse_public_key, sign
from holdfast.store.errors import CatalogError

As = Callable[[str], Control]

pytestmark = pytest.mark.programs  # ssh-keygen signs and verifies

RULES = """
[[rule]]
name = "starting again"
actions = ["keystore unblock"]
reason = true
approvals = { role = "approver", count = 2 }
"""
ENROLLED = {
    "ada": (Role.ADMINISTRATOR,),
    "carl": (Role.CUSTODIAN,),
    "alice": (Role.APPROVER,),
    "bob": (Role.APPROVER, Role.CUSTODIAN),
    "eve": (Role.VIEWER,),
}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an SSH key for each person, and one for a stranger."""
    directory = tmp_path_factory.mktemp("keys")
    for name in (*ENROLLED, "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name],
            check=True,
            timeout=PATIENCE,
        )
    return directory


@pytest.fixture
def office(catalog: Catalog, as_: As, keys: Path) -> As:
    """Everybody is enrolled, the rules are in force, and alpha is blocked."""
    for name, roles in ENROLLED.items():
        key = parse_public_key((keys / f"{name}.pub").read_text())
        as_("ada").do(EnrolOperator(operator=name, roles=roles, public_key=key))
    as_("ada").do(SetRules(approval=RULES))
    catalog.set_blocked("alpha", blocked=True)
    return as_


def asked(control: Control, reason: str = "drill is over") -> Plan:
    """The plan of an unblock that waits now."""
    pending = control.carry_out(control.plan(UnblockKeystores(names=("alpha",)), reason=reason))
    assert isinstance(pending, Pending)
    return pending.plan


def is_blocked(catalog: Catalog) -> bool:
    return catalog.keystores()[0].blocked


def outcomes(catalog: Catalog, plan: Plan) -> list[str]:
    return [row.outcome for row in catalog.changes(beginning=plan.id)]


def test_the_last_approval_that_is_needed_applies_the_change(catalog: Catalog, office: As, keys: Path) -> None:
    plan = asked(office("carl"))
    assert is_blocked(catalog)
    first = office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    assert isinstance(first, Pending)
    assert first.missing == "2 approvers"
    assert is_blocked(catalog)
    assert isinstance(office("carl").approve(plan.id, sign(plan.digest, keys / "bob")), Done)
    assert not is_blocked(catalog)
    assert outcomes(catalog, plan) == ["requested", "approved", "approved", "applied"]
    change = catalog.changes(beginning=plan.id)[-1].change
    assert change is not None
    assert ([approval.name for approval in change.approvals], change.actor.name) == (["alice", "bob"], "carl")


def test_a_stranger_verifies_the_record_with_openssh_alone(
    catalog: Catalog, office: As, keys: Path, tmp_path: Path
) -> None:
    plan = asked(office("carl"))
    for name in ("alice", "bob"):
        office("carl").approve(plan.id, sign(plan.digest, keys / name))
    change = catalog.changes(beginning=plan.id)[-1].change
    assert change is not None
    for approval in change.approvals:
        (tmp_path / "allowed").write_text(f"{approval.name} {approval.public_key}\n")
        (tmp_path / "signature").write_text(approval.signature)
        arguments = ["-f", "allowed", "-I", approval.name, "-n", NAMESPACE, "-s", "signature"]
        for digest, code in ((change.plan, 0), ("0" * 64, 255)):
            done = subprocess.run(
                ["ssh-keygen", "-Y", "verify", *arguments],
                input=f"{digest}\n",
                text=True,
                cwd=tmp_path,
                check=False,
                capture_output=True,
                timeout=PATIENCE,
            )
            assert done.returncode == code


@pytest.mark.parametrize(
    "wrong",
    [
        ("carl", "", "carl has asked for this change"),
        ("stranger", "", "belongs to no operator"),
        ("alice", "0" * 64, "but not over this plan"),
        ("eve", "", "eve is viewer, and this change needs 2 approvers"),
    ],
    ids=["by whoever asks", "by an unknown key", "over another digest", "by a role that does not count"],
)
def test_an_approval_that_is_none_is_refused_and_the_change_goes_on_waiting(
    catalog: Catalog, office: As, keys: Path, wrong: tuple[str, str, str]
) -> None:
    by, over, said = wrong
    plan = asked(office("carl"))
    before = catalog.version()
    with pytest.raises(Denied, match=said):
        office("carl").approve(plan.id, sign(over or plan.digest, keys / by))
    assert (is_blocked(catalog), catalog.version(), outcomes(catalog, plan)) == (True, before, ["requested"])


def test_an_approval_after_expiry_is_refused(catalog: Catalog, office: As, keys: Path, clock: Clock) -> None:
    plan = asked(office("carl"))
    clock.now += timedelta(hours=25)
    with pytest.raises(Conflict, match="has expired"):
        office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    assert outcomes(catalog, plan) == ["requested", "expired"]
    with pytest.raises(Conflict, match="is expired already"):
        office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))


def test_a_signature_for_another_purpose_is_no_approval(catalog: Catalog, office: As, keys: Path) -> None:
    """A commit, a file or mail that the person has signed is not an approval."""
    plan = asked(office("carl"))
    other = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / "alice", "-n", "file"],
        input=f"{plan.digest}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    with pytest.raises(Denied, match="not over this plan"):
        office("carl").approve(plan.id, other)
    with pytest.raises(Invalid, match="not an SSH signature"):
        office("carl").approve(plan.id, "approved, Alice")
    assert is_blocked(catalog)


def test_one_person_counts_once(catalog: Catalog, office: As, keys: Path) -> None:
    plan = asked(office("carl"))
    for _ in range(3):
        assert isinstance(office("carl").approve(plan.id, sign(plan.digest, keys / "alice")), Pending)
    assert is_blocked(catalog)


def test_what_was_approved_is_not_applied_to_something_else(catalog: Catalog, office: As, keys: Path) -> None:
    """Blocked again for another reason, the keystore does not open by an old approval."""
    plan = asked(office("carl"))
    office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    catalog.set_blocked("alpha", blocked=False)
    with pytest.raises(Outdated, match="the catalog has changed since the plan was made"):
        office("carl").approve(plan.id, sign(plan.digest, keys / "bob"))
    assert outcomes(catalog, plan)[-1] == "refused"
    catalog.set_blocked("alpha", blocked=True)
    with pytest.raises(Conflict, match="is refused already"):
        office("carl").apply(plan.id)
    assert is_blocked(catalog)


def test_an_approval_does_not_serve_a_second_time(catalog: Catalog, office: As, keys: Path) -> None:
    first = asked(office("carl"))
    signed = {name: sign(first.digest, keys / name) for name in ("alice", "bob")}
    for signature in signed.values():
        office("carl").approve(first.id, signature)
    catalog.set_blocked("alpha", blocked=True)
    second = asked(office("carl"))
    assert second.effects == first.effects
    with pytest.raises(Denied, match="not over this plan"):
        office("carl").approve(second.id, signed["alice"])
    assert is_blocked(catalog)


def test_the_approval_of_one_who_is_no_operator_any_more_does_not_count(
    catalog: Catalog, office: As, keys: Path
) -> None:
    catalog_before = office("ada").do(EnrolOperator(operator="dora", roles=(Role.APPROVER,), public_key=None))
    assert catalog_before is not None
    plan = asked(office("carl"))
    office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    office("ada").do(RemoveOperator(operator="alice"))
    pending = office("carl").approve(plan.id, sign(plan.digest, keys / "bob"))
    assert isinstance(pending, Pending)
    assert is_blocked(catalog)


def test_an_approval_in_the_database_that_nobody_signed_does_not_count(
    catalog: Catalog, office: As, keys: Path
) -> None:
    plan = asked(office("carl"))
    with catalog._writing() as connection:
        connection.execute(
            text(
                "INSERT INTO approvals (request_id, operator, time, public_key, signature)"
                " SELECT :id, name, enrolled_at, public_key, :signature FROM operators WHERE name = 'bob'"
            ),
            {"id": plan.id, "signature": sign("0" * 64, keys / "bob")},
        )
    with pytest.raises(Denied):
        office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    assert is_blocked(catalog)


def test_a_plan_that_was_changed_in_the_database_is_not_applied(catalog: Catalog, office: As, keys: Path) -> None:
    plan = asked(office("carl"))
    office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))
    with catalog._writing() as connection:
        connection.execute(text("UPDATE requests SET plan = replace(plan, 'drill is over', 'another story')"))
    with pytest.raises(Denied):
        office("carl").approve(plan.id, sign(plan.digest, keys / "bob"))
    assert is_blocked(catalog)


def test_rejected_and_withdrawn_changes_are_over(catalog: Catalog, office: As, keys: Path) -> None:
    rejected, withdrawn = asked(office("carl")), asked(office("carl"))
    with pytest.raises(Denied, match="carl has asked for this change, not bob"):
        office("bob").withdraw(withdrawn.id, "")
    with pytest.raises(Invalid, match="a reason has at most 500 printable characters"):
        office("bob").reject(rejected.id, "two\nlines")
    office("bob").reject(rejected.id, "not yet")
    office("carl").withdraw(withdrawn.id, "")
    for plan, outcome in ((rejected, "rejected"), (withdrawn, "withdrawn")):
        assert outcomes(catalog, plan) == ["requested", outcome]
        with pytest.raises(Conflict, match=f"is {outcome} already"):
            office("carl").approve(plan.id, sign(plan.digest, keys / "alice"))


def test_a_stop_waits_for_nobody_also_where_a_rule_names_it(catalog: Catalog, office: As) -> None:
    rules = RULES.replace('"keystore unblock"', '"*"').replace("count = 2", "count = 1")
    ada = office("ada")
    ada.do(SetRules(approval=rules))
    plan = office("carl").plan(BlockKeystores(names=("beta",)))
    assert isinstance(office("carl").carry_out(plan), Done)
    assert [row.blocked for row in catalog.keystores()] == [True, True]


def test_a_reason_that_a_rule_asks_for_is_not_left_out(office: As) -> None:
    with pytest.raises(Invalid, match="the rule 'starting again' asks for a reason"):
        office("carl").plan(UnblockKeystores(names=("alpha",)))


def test_rules_that_became_stricter_hold_for_plans_made_before(catalog: Catalog, office: As) -> None:
    office("ada").do(SetRules(approval=""))
    plan = office("carl").plan(UnblockKeystores(names=("alpha",)))
    office("ada").do(SetRules(approval=RULES))
    with pytest.raises(Outdated, match="the rules have changed"):
        office("carl").carry_out(plan)
    assert is_blocked(catalog)


def test_rules_that_nobody_could_meet_are_refused(office: As) -> None:
    with pytest.raises(Conflict, match="those who are enrolled are not enough"):
        office("ada").do(SetRules(approval=RULES.replace("count = 2", "count = 3")))
    with pytest.raises(Conflict, match="nobody would be an administrator"):
        office("ada").do(RemoveOperator(operator="ada"))


def test_who_is_not_enrolled_stops_and_nothing_else(office: As) -> None:
    office("stranger").do(BlockKeystores(names=("beta",)))
    with pytest.raises(Denied, match=r"stranger \(stopper\) may not do `keystore set`"):
        office("stranger").plan(ChangeKeystore(keystore="alpha", region="eu-central-1"))
    with pytest.raises(Denied, match=r"eve \(viewer\) may not do `keystore block`"):
        office("eve").plan(BlockKeystores(names=("alpha",)))


def test_policies_that_cannot_be_read_do_not_prevent_a_stop(catalog: Catalog, office: As) -> None:
    with catalog._writing() as connection:
        connection.execute(text("INSERT INTO rules (name, content) VALUES ('authorization', 'permit (')"))
    office("carl").do(BlockKeystores(names=("beta",)))
    with pytest.raises(Invalid, match="the policies cannot be read"):
        office("ada").plan(ChangeKeystore(keystore="alpha", region="eu-central-1"))


def test_the_bank_set_separates_duties(office: As) -> None:
    set_ = SetRules(approval=bank_rules(), authorization=shipped_policies(bank=True))
    assert office("ada").do(set_, reason="go live") is not None
    with pytest.raises(Denied):  # an administrator does not start keys again
        office("ada").plan(UnblockKeystores(names=("alpha",)), reason="x")
    plan = office("carl").plan(UnblockKeystores(names=("alpha",)), reason="x")
    assert plan.expires is not None
    office("ada").do(BlockKeystores(names=("beta",)))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[[rule]]\nname = 'x'\nactions = ['*']\n", "asks for nothing"),
        ("[[rule]]\nname = 'x'\nactions = ['*']\napprovals = { role = 'boss' }\n", "boss"),
        ("[[rule]]\nname = 'x'\nactions = ['*']\napprovals = { role = 'approver', any = [] , count = 0 }\n", "count"),
        ("[[rule]]\nname = 'x'\nactions = ['*']\nreason = true\naprovals = 1\n", "aprovals"),
        ("expires_after_h = 0\n", "expires_after_h"),
        ("= 1", "cannot be read"),
    ],
)
def test_rules_with_a_mistake_are_refused(rules: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        Rules.parse(rules)


@pytest.mark.parametrize(
    ("persons", "met"),
    [
        ({"a": "approver", "b": "approver"}, False),
        ({"a": "approver", "b": "custodian"}, True),
        ({"a": "approver custodian"}, False),  # one person fills one place
        ({"a": "approver custodian", "b": "approver"}, True),
        ({"a": "administrator"}, True),
    ],
)
def test_each_place_of_a_rule_takes_a_person_of_its_own(persons: dict[str, str], met: object) -> None:
    both = "{ all = [{ role = 'approver' }, { role = 'custodian' }] }"
    rules = Rules.parse(
        f"[[rule]]\nname = 'x'\nactions = ['*']\napprovals = {{ any = [{{ role = 'administrator' }}, {both}] }}"
    )
    (needed,) = rules.needed(UnblockKeystores())
    assert needed.met_by({name: frozenset(map(Role, roles.split())) for name, roles in persons.items()}) is met


@pytest.mark.parametrize("key", ["", "ssh-dss AAAAB3NzaC1kc3MAAACB", "ssh-ed25519 AAAA", "nonsense"])
def test_a_key_that_cannot_approve_is_refused(key: str) -> None:
    with pytest.raises(Invalid):
        parse_public_key(key)


def test_two_persons_do_not_share_a_key(office: As, keys: Path) -> None:
    key = parse_public_key((keys / "alice.pub").read_text())
    with pytest.raises(Conflict, match="the key of alice"):
        office("ada").plan(EnrolOperator(operator="dora", roles=(Role.APPROVER,), public_key=key))


def test_a_change_that_cannot_be_made_is_not_asked_for(office: As) -> None:
    with pytest.raises((AdminError, CatalogError)):
        office("carl").plan(UnblockKeystores(names=("none-such",)), reason="x")


def test_policies_know_every_change() -> None:
    """A change that is in no group could be permitted to administrators only, or to nobody by mistake."""
    known = set(re.findall(r'action "([^"]+)" in', SCHEMA))
    assert {action.name() for action in get_args(AnyAction)} <= known
