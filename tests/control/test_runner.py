"""Each change goes one road: what was planned happens, whole, with its record, or nothing does."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from tests.administered import Catalog
from tests.control.conftest import Clock

from holdfast.audit.records import Effect
from holdfast.control.actions import AnyAction
from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)
from holdfast.control.errors import AdminError, Invalid, Outdated
from holdfast.control.plan import Plan
from holdfast.control.runner import Control, Done
from holdfast.store.errors import CatalogError
from holdfast.xks.types import UriPathPrefix

As = Callable[[str], Control]


def blocked(catalog: Catalog) -> dict[str, bool]:
    return {row.name: row.blocked for row in catalog.keystores()}


def carried_out(control: Control, plan: Plan) -> Done:
    done = control.carry_out(plan)
    assert isinstance(done, Done)
    return done


def test_blocking_every_keystore_is_one_version_and_one_record(catalog: Catalog, as_: As) -> None:
    before = catalog.version()
    control = as_("alice")
    plan = control.plan(BlockKeystores(), reason="drill", ticket="T-1")
    done = carried_out(control, plan)
    assert catalog.version() == done.version == before + 1
    (row,) = catalog.changes(beginning=done.id)
    assert row.change is not None
    assert (row.outcome, row.logged) == ("applied", None)
    found = row.change
    assert (found.actor.name, found.reason, found.ticket, found.action) == ("alice", "drill", "T-1", "keystore block")
    assert found.effects == tuple(
        Effect(subject=f"keystore {name}", before={"blocked": False}, after={"blocked": True})
        for name in ("alpha", "beta")
    )
    assert (found.plan, found.catalog_version) == (plan.digest, done.version)
    assert blocked(catalog) == {"alpha": True, "beta": True}


def test_a_plan_is_carried_out_once_also_when_its_effects_are_to_be_had_again(catalog: Catalog, as_: As) -> None:
    control = as_("alice")
    plan = control.plan(ChangeKeystore(keystore="alpha", prefix="/gamma"))
    carried_out(control, plan)
    control.do(ChangeKeystore(keystore="alpha", prefix="/alpha"))
    before = catalog.version(), catalog.changes()
    with pytest.raises(Outdated, match=f"the change {plan.id} was made already"):
        control.carry_out(plan)
    assert (catalog.version(), catalog.changes()) == before


def test_a_plan_says_what_is_to_be_altered_and_alters_nothing(catalog: Catalog, as_: As) -> None:
    before = catalog.version(), catalog.changes()
    plan = as_("alice").plan(UnblockKeystores(names=("alpha",)))
    assert plan.effects == ()
    assert (catalog.version(), catalog.changes()) == before


def test_a_plan_of_an_older_catalog_is_refused_with_what_differs(catalog: Catalog, as_: As) -> None:
    control = as_("alice")
    plan = control.plan(ChangeKeystore(keystore="alpha", region="eu-central-1"))
    catalog.change_keystore("alpha", region="eu-west-1")
    changes, version = catalog.changes(), catalog.version()
    with pytest.raises(Outdated) as caught:
        control.carry_out(plan)
    assert f"the catalog has changed since the plan was made: version {plan.version} -> {version}" in str(
        caught.value
    )
    assert "region none -> eu-central-1" in str(caught.value)
    assert "region eu-west-1 -> eu-central-1" in str(caught.value)
    assert (catalog.changes(), catalog.version()) == (changes, version)


def test_a_plan_outlives_a_change_that_does_not_touch_it(catalog: Catalog, as_: As) -> None:
    control = as_("alice")
    plan = control.plan(ChangeKeystore(keystore="alpha", region="eu-central-1"))
    catalog.change_keystore("beta", region="eu-west-1")
    control.carry_out(plan)
    assert [row.region for row in catalog.keystores()] == ["eu-central-1", "eu-west-1"]


def test_a_block_is_applied_to_what_is_there_then(catalog: Catalog, as_: As) -> None:
    """Break-glass: a keystore that was made or unblocked meanwhile is not missed."""
    control = as_("alice")
    catalog.set_blocked("alpha", blocked=True)
    plan = control.plan(BlockKeystores())
    catalog.set_blocked("alpha", blocked=False)
    catalog.create_keystore("gamma", UriPathPrefix("/gamma"))
    done = carried_out(control, plan)
    assert blocked(catalog) == {"alpha": True, "beta": True, "gamma": True}
    assert len(done.effects) == 3


def test_a_block_wins_over_an_unblock_that_was_planned_before_it(catalog: Catalog, as_: As) -> None:
    catalog.set_blocked("alpha", blocked=True)
    plan = as_("alice").plan(UnblockKeystores())
    as_("bob").do(BlockKeystores())
    with pytest.raises(Outdated):
        as_("alice").carry_out(plan)
    assert blocked(catalog) == {"alpha": True, "beta": True}


def test_a_stop_that_somebody_else_made_meanwhile_makes_no_version(catalog: Catalog, as_: As) -> None:
    control = as_("alice")
    plan = control.plan(BlockKeystores(names=("alpha",)))
    catalog.set_blocked("alpha", blocked=True)
    before = catalog.version(), catalog.changes()
    assert carried_out(control, plan).effects == ()
    assert (catalog.version(), catalog.changes()) == before


def test_a_block_for_a_time_never_shortens_another(catalog: Catalog, as_: As, clock: Clock) -> None:
    soon, later = clock.now + timedelta(hours=1), clock.now + timedelta(hours=2)
    control = as_("alice")

    def end() -> datetime | None:
        return catalog.keystores()[0].blocked_until

    control.do(BlockKeystores(names=("alpha",), until=later))
    assert control.do(BlockKeystores(names=("alpha",), until=soon)) is None
    assert end() == later
    control.do(BlockKeystores(names=("alpha",)))
    assert (end(), blocked(catalog)["alpha"]) == (None, True)
    assert control.do(BlockKeystores(names=("alpha",), until=later)) is None
    control.do(UnblockKeystores(names=("alpha",)))
    assert (end(), blocked(catalog)["alpha"]) == (None, False)


def test_a_change_that_fails_leaves_no_record(catalog: Catalog, as_: As, monkeypatch: pytest.MonkeyPatch) -> None:
    control = as_("alice")
    plan = control.plan(CreateKeystore(keystore="gamma", prefix="/gamma"))
    before = catalog.version(), catalog.changes(), catalog.keystores()
    with monkeypatch.context() as patched:
        patched.setattr("holdfast.store.transaction.write_record", _fail)
        with pytest.raises(CatalogError):
            control.carry_out(plan)
    assert (catalog.version(), catalog.changes(), catalog.keystores()) == before


def _fail(*_: object, **__: object) -> None:
    raise CatalogError("the disk is full")


def test_a_change_without_its_record_is_not_made(catalog: Catalog) -> None:
    before = catalog.version()
    with pytest.raises(RuntimeError, match="without its record"), catalog.changing("an-id") as transaction:
        transaction.set_blocked("alpha", blocked=True)
    assert (catalog.version(), blocked(catalog)["alpha"]) == (before, False)


def test_a_stop_goes_on_where_the_catalog_cannot_keep_its_record(catalog: Catalog, as_: As) -> None:
    with catalog._writing() as connection:
        connection.execute(text("DROP TABLE changes"))
    control = as_("alice")
    done = carried_out(control, control.plan(BlockKeystores(names=("alpha",))))
    assert (done.recorded, blocked(catalog)["alpha"]) == (False, True)
    with pytest.raises(CatalogError):
        control.do(UnblockKeystores(names=("alpha",)))
    assert blocked(catalog)["alpha"]


MADE: list[AnyAction] = [
    BlockKeystores(names=("alpha",)),
    ChangeKeystore(keystore="alpha", prefix="/moved", region="eu-central-1"),
]


@pytest.mark.parametrize("action", MADE, ids=lambda action: str(action.name()))
def test_what_was_done_is_not_left_to_do(as_: As, action: AnyAction) -> None:
    """What an action says that it alters is what it alters."""
    assert as_("alice").do(action) is not None
    assert as_("alice").plan(action).effects == ()


@pytest.mark.parametrize(
    "action",
    [CreateKeystore(keystore="gamma", prefix=""), DeleteKeystore(keystore="beta")],
    ids=lambda one: one.name(),
)
def test_what_is_made_or_removed_cannot_be_made_or_removed_again(as_: As, action: AnyAction) -> None:
    as_("alice").do(action)
    with pytest.raises((CatalogError, AdminError), match=r"there is (a|no) keystore"):
        as_("alice").plan(action)


def test_the_digest_is_of_everything_that_is_approved(as_: As) -> None:
    plan = as_("alice").plan(BlockKeystores(), reason="drill")
    again = Plan.parse(plan.document)
    assert (again, again.digest) == (plan, plan.digest)
    other = as_("alice").plan(BlockKeystores(), reason="drill")
    assert other.digest != plan.digest  # an approval of the one is none of the other


def test_a_stored_plan_with_another_spelling_is_refused(as_: As) -> None:
    document = as_("alice").plan(BlockKeystores()).document
    with pytest.raises(ValueError, match="not one of this version"):
        Plan.parse(document.replace(b'":', b'": ', 1))


@pytest.mark.parametrize("text_", ["x" * 501, "two\nlines", "\x1b[2J"])
def test_a_reason_that_would_spoil_the_record_is_refused(as_: As, text_: str) -> None:
    with pytest.raises(Invalid, match="at most 500 printable characters"):
        as_("alice").plan(BlockKeystores(), reason=text_)
