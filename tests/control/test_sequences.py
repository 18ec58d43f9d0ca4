"""Random sequences of changes, crashes and node losses keep what the manager promises, whatever their order.

`make test` tries 40 with the rules of one person and 40 with those of two; `make sequences` tries 5,000 of each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import Engine, event, select
from tests.server.token import HEALTH_KEY, LIBRARY, PIN, TOKEN, make_token, softhsm_environment, write_configuration

from holdfast.audit import records
from holdfast.audit.records import Actor, Change
from holdfast.config.load import parse
from holdfast.control.actions import AnyAction
from holdfast.control.actions.credentials import IssueCredential, RetireCredential
from holdfast.control.actions.generations import (
    CompromiseGeneration,
    ConfirmDestruction,
    KeepGeneration,
    PlanDestruction,
    ResumeGeneration,
    SuspendGeneration,
)
from holdfast.control.actions.keys import CreateKey, DisableKey, EnableKey, UnregisterKey
from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)
from holdfast.control.actions.nodes import ForgetNode
from holdfast.control.actions.operators import EnrolOperator, SetRules
from holdfast.control.actions.rotation import ActivateGeneration, CheckRotation, PrepareRotation, RollBack
from holdfast.control.errors import AdminError
from holdfast.control.roles import Role
from holdfast.control.runner import Control, Pending
from holdfast.control.signatures import parse_public_key, sign
from holdfast.hsm.faults import HsmFault
from holdfast.keys.states import GenerationState
from holdfast.store import schema
from holdfast.store.errors import CatalogError
from holdfast.store.nodes import Node, WorkerState
from holdfast.store.records import APPLIED
from holdfast.store.store import Catalog
from holdfast.store.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.plan import Plan

pytestmark = [pytest.mark.programs, pytest.mark.timeout(0)]

WANTED = os.environ.get("HOLDFAST_SEQUENCES")
EXAMPLES = int(WANTED or 40)
STEPS = 20
LEASE = 90.0
"""Longer than the time after which a silent node does not count as one of the fleet any more."""
START = datetime(2026, 11, 25, 12, tzinfo=UTC)

CONFIGURATION = """
[server]
listen = "127.0.0.1:8443"
[hsm.main]
profile = "softhsm2"
library = "{library}"
environment = {{ SOFTHSM2_CONF = "{softhsm}" }}
token = {{ label = "{token}" }}
pin = {{ file = "{pin}" }}
health_key = "{health}"
"""

RULES = """
[[rule]]
name = "starting again"
actions = ["keystore unblock", "key enable", "key generation resume", "key generation destroyed", "credential issue"]
approvals = { role = "approver" }
"""

KEYSTORES, KEYS, LABELS = ("alpha", "beta"), ("one", "two"), ("a", "b", "c", "d", "e")
CREDENTIALS = ("AKIAIOSFODNN7EXAMPLEA", "AKIAIOSFODNN7EXAMPLEB")

keystores, keys, labels, numbers = map(st.sampled_from, (KEYSTORES, KEYS, LABELS, (1, 2, 3)))
moments = st.none() | st.integers(1, 200).map(lambda seconds: START + timedelta(seconds=seconds))
some = st.none() | keystores.map(lambda name: (name,))
of_key = {"keystore": keystores, "external_key_id": keys}
of_generations = {"keystore": keystores, "key": keys}
of_one = {**of_generations, "generation": numbers}

actions: st.SearchStrategy[AnyAction] = st.one_of(
    st.builds(BlockKeystores, names=some, until=moments),
    st.builds(UnblockKeystores, names=some),
    st.builds(CreateKeystore, keystore=keystores, prefix=st.sampled_from(("/alpha", "/beta"))),
    st.builds(ChangeKeystore, keystore=keystores, prefix=st.sampled_from(("/alpha", "/gamma"))),
    st.builds(DeleteKeystore, keystore=keystores),
    st.builds(CreateKey, **of_key, hsm=st.just("main"), label=labels, cka_id=st.binary(min_size=4, max_size=4)),
    st.builds(DisableKey, **of_key),
    st.builds(EnableKey, **of_key),
    st.builds(UnregisterKey, **of_key),
    st.builds(IssueCredential, keystore=keystores, access_key_id=st.sampled_from(CREDENTIALS)),
    st.builds(RetireCredential, access_key_id=st.sampled_from(CREDENTIALS)),
)
rotations: st.SearchStrategy[AnyAction] = st.one_of(
    st.builds(PrepareRotation, **of_generations, hsm=st.just("main"), label=labels),
    st.builds(CheckRotation, **of_generations, make=st.booleans()),
    st.builds(ActivateGeneration, **of_generations),
    st.builds(RollBack, **of_generations),
    st.builds(SuspendGeneration, **of_one),
    st.builds(ResumeGeneration, **of_one),
    st.builds(CompromiseGeneration, **of_one),
    st.builds(PlanDestruction, **of_one, days=st.just(7)),
    st.builds(KeepGeneration, **of_one),
    st.builds(ConfirmDestruction, **of_one),
)
crashes = st.none() | st.integers(0, 30)
"""Before which statement or commit a process ends."""
REFUSALS = (AdminError, CatalogError, HsmFault)
"""Clear words, and nothing changed."""


STOPS = {action.name() for action in get_args(AnyAction) if action.stops}


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crashing(statement: int | None) -> Iterator[None]:
    """End the block before its database statement or commit of this number, from 0; None: let it be."""
    passed = 0

    def count(*_arguments: Any) -> None:
        nonlocal passed
        passed += 1
        if passed - 1 == statement:
            raise Crash

    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, count)
    try:
        with suppress(Crash):
            yield
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(Engine, name, count)


@dataclass
class RunningNode:
    """A node with one worker: what it has read, when, and whose generations' canaries it has opened."""

    name: str
    view: View | None = None
    looked: datetime = START
    opened: set[int] = field(default_factory=set)

    def look(self, catalog: Catalog, now: datetime, *, sees_new_keys: bool) -> None:
        """As a worker does several times a second: read, report what it serves, open what is ready."""
        is_new = self.view is None
        if self.view is None:
            self.view, self.opened = View(), set()
            catalog.heartbeat(self.name)
        catalog.refresh(self.view)
        self.looked = now
        node = Node(self.name, None, 1, LEASE)
        catalog.report_worker(node, 0, WorkerState(self.view.version, {}, None), run=self.name, first=True)
        for keystore in self.view.keystores.values():
            for key in keystore.keys.values():
                for one in key.generations.values():
                    # A new process has initialised its library just now, and sees every key; one that missed a
                    # rotation looks for the key as well, and refuses until then.
                    missed = one.state is not GenerationState.READY and one.state.decrypts
                    if is_new or missed or (one.state is GenerationState.READY and sees_new_keys):
                        self.opened.add(one.id)
                    if one.state is GenerationState.READY:
                        fault = None if one.id in self.opened else "the HSM does not show the key yet"
                        catalog.report_generation(one.id, proxy_id=self.name, worker=0, looks=one.looks, fault=fault)

    def serves(self, now: datetime) -> bool:
        """Whether it answers: it runs, and its lease has not ended."""
        return self.view is not None and (now - self.looked).total_seconds() <= LEASE

    def keys(self, now: datetime) -> dict[tuple[str, str], Any]:
        """The keys that it serves, by keystore and external key id; none where its lease has ended."""
        if self.view is None or not self.serves(now):
            return {}
        return {
            (keystore.name, name): key
            for keystore in self.view.keystores.values()
            for name, key in keystore.keys.items()
        }


def url(directory: Path) -> str:
    """The catalog's."""
    return f"sqlite:///{directory}/catalog.db"


def control_of(directory: Path, catalog: Catalog, name: str, now: Callable[[], datetime]) -> Control:
    """The installation in this directory in the hands of a person."""
    write_configuration(directory)
    text = CONFIGURATION.format(
        library=LIBRARY,
        softhsm=softhsm_environment(directory)["SOFTHSM2_CONF"],
        token=TOKEN,
        pin=directory / "pin",
        health=HEALTH_KEY,
    )
    actor = Actor(name=name, known_by="os-user", where=f"{name}@here")
    return Control(parse(text, directory / "holdfast.toml"), catalog, actor=actor, now=now)


class Installation(RuleBasedStateMachine):
    """A catalog, a token, two persons who change it, two nodes; each step is one thing that somebody does."""

    plans: Bundle[Plan] = Bundle("plans")
    waiting: Bundle[str] = Bundle("waiting")

    def __init__(self, template: Path, *, two_persons: bool) -> None:
        super().__init__()
        self.template = template
        # A file system in memory: what a disk keeps of a commit is not the question here.
        memory = Path("/dev/shm")  # noqa: S108 (a directory of its own below it)
        self.directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        shutil.copytree(template, self.directory, dirs_exist_ok=True)
        self.now = START
        self.nodes = [RunningNode("north"), RunningNode("south")]
        self.replayed: Replayed = {}
        self.applied: Counter[str] = Counter()
        self.last_record, self.last_version = 0, 1
        self.catalog = Catalog.open(url(self.directory), self.directory / "secrets", now=lambda: self.now)
        if two_persons:
            ada = self._as("ada")
            ada.do(EnrolOperator(operator="ada", roles=(Role.ADMINISTRATOR, Role.CUSTODIAN)))
            bob = parse_public_key((template / "bob.pub").read_text())
            ada.do(EnrolOperator(operator="bob", roles=(Role.APPROVER,), public_key=bob))
            ada.do(SetRules(approval=RULES))

    def teardown(self) -> None:
        """Nothing stays."""
        self.catalog.close()
        shutil.rmtree(self.directory)

    def _as(self, name: str) -> Control:
        return control_of(self.directory, self.catalog, name, lambda: self.now)

    def _attempt(self, crash: int | None, change: Callable[[], Any]) -> Any:
        """What it gives; None where it was refused, or the process ended before."""
        self.now += timedelta(seconds=1)
        with crashing(crash), suppress(*REFUSALS):
            return change()
        return None

    # ---- what persons do

    @rule(action=actions | rotations, crash=crashes)
    def change(self, action: AnyAction, crash: int | None) -> None:
        """A command from beginning to end."""
        control = self._as("ada")
        self._attempt(crash, lambda: control.carry_out(control.plan(action, reason="a reason")))

    @rule(keystore=keystores, key=keys, label=labels, looking=st.sets(st.integers(0, 1)))
    def rotate(self, keystore: str, key: str, label: str, looking: set[int]) -> None:
        """All steps of a rotation that the nodes let happen; those that do not look are cut off."""
        control = self._as("ada")
        for action in (
            PrepareRotation(keystore=keystore, key=key, hsm="main", label=label),
            CheckRotation(keystore=keystore, key=key, make=True),
        ):
            self._attempt(None, partial(control.do, action, reason="a reason"))
        for number in looking:
            self.nodes[number].look(self.catalog, self.now, sees_new_keys=True)
        self._attempt(None, lambda: control.do(ActivateGeneration(keystore=keystore, key=key), reason="a reason"))

    @rule(target=plans, action=actions | rotations)
    def plan(self, action: AnyAction) -> Any:
        """A plan that is carried out later, or never."""
        made = self._attempt(None, lambda: self._as("ada").plan(action, reason="a reason"))
        return multiple() if made is None or not made.effects else made

    @rule(target=waiting, plan=plans, crash=crashes)
    def carry_out(self, plan: Plan, crash: int | None) -> Any:
        """A plan that may be out of date, and may have been carried out before."""
        done = self._attempt(crash, lambda: self._as("ada").carry_out(plan))
        if isinstance(done, Pending):
            return plan.id
        return multiple()

    @rule(identity=consumes(waiting), crash=crashes)
    def approve(self, identity: str, crash: int | None) -> None:
        """Another person agrees, which applies the change."""
        (request,) = self._as("bob").requests(identity)
        signature = sign(request.plan.digest, self.template / "bob")
        done = self._attempt(crash, lambda: self._as("bob").approve(identity, signature))
        assert crash is not None or not isinstance(done, Pending), "one approver is enough by these rules"

    @rule(identity=consumes(waiting), crash=crashes)
    def reject(self, identity: str, crash: int | None) -> None:
        """Another person does not agree."""
        self._attempt(crash, lambda: self._as("bob").reject(identity, "no"))

    # ---- what nodes do

    @rule(number=st.integers(0, 1), sees_new_keys=st.booleans())
    def look(self, number: int, sees_new_keys: bool) -> None:  # noqa: FBT001 (a rule's argument)
        """A node starts, or looks at the catalog once more."""
        self.nodes[number].look(self.catalog, self.now, sees_new_keys=sees_new_keys)

    @rule(number=st.integers(0, 1))
    def kill(self, number: int) -> None:
        """A node is gone, without a word."""
        self.nodes[number].view = None

    @rule(number=st.integers(0, 1))
    def forget(self, number: int) -> None:
        """An operator knows that a node is gone, and says so."""
        if self.nodes[number].view is None:
            action = ForgetNode(node=self.nodes[number].name)
            self._attempt(None, lambda: self._as("ada").do(action, reason="a reason"))

    @rule(seconds=st.sampled_from((5, 61, 91, 8 * 86400)))
    def wait(self, seconds: int) -> None:
        """Nobody does anything; nodes that run are cut off from the catalog meanwhile."""
        self.now += timedelta(seconds=seconds)

    # ---- what is promised

    @invariant()
    def every_promise_is_kept(self) -> None:
        """Each of them, after each step."""
        with self.catalog.reading() as state:
            self._read_records(state)
            rows, found = state.keys(None), rows_of(state)
            version = state.version()
        # No change without its record, no record without its change.
        assert self.replayed == found
        # A plan is carried out once.
        assert [identity for identity, count in self.applied.items() if count > 1] == []
        # Nothing but a recorded change makes a version.
        assert version == self.last_version
        # Each key has one active generation: not none, and not two.
        active = Counter((row.keystore, row.external_key_id) for row in rows if row.state is GenerationState.ACTIVE)
        assert active == dict.fromkeys({(row.keystore, row.external_key_id) for row in rows}, 1)
        self._no_node_makes_a_ciphertext_that_another_cannot_open()

    def _read_records(self, state: Any) -> None:
        """Those that are new: what they say is added to what the earlier ones said."""
        table = schema.changes
        new = select(table.c.number, table.c.record).where(
            table.c.outcome == APPLIED, table.c.number > self.last_record
        )
        for number, text in state.connection.execute(new.order_by(table.c.number)):
            change = records.decode(text.encode())
            assert isinstance(change, Change)
            self.last_record = number
            # A stop is made again if somebody asks for it again, whatever was planned when.
            self.applied[change.id] += change.action not in STOPS
            self.last_version = max(self.last_version, change.catalog_version or 0)
            what_stands_still_is_started_by_a_person_alone(change)
            replay(change, self.replayed)

    def _no_node_makes_a_ciphertext_that_another_cannot_open(self) -> None:
        """What one that serves encrypts with, every one that serves has opened the canary of."""
        for one in self.nodes:
            for name, key in one.keys(self.now).items():
                for other in self.nodes:
                    theirs = other.keys(self.now).get(name)
                    if theirs is None or theirs.tag != key.tag:
                        continue  # the key is new, or another one by the same name
                    generation = theirs.generations.get(key.active.number)
                    assert generation is not None, f"{other.name} does not know {name} {key.active.number}"
                    if generation.state.decrypts and key.active.number > 1:
                        assert generation.id in other.opened, f"{other.name} has not opened {name}"


def what_stands_still_is_started_by_a_person_alone(change: Change) -> None:
    """Only an unblock opens a keystore, and only an enable starts a key."""
    for effect in change.effects:
        before, after = effect.before, effect.after
        if not isinstance(before, dict) or not isinstance(after, dict):
            continue
        if before.get("blocked") and not after.get("blocked", True):
            assert change.action == "keystore unblock"
        if before.get("status") == "DISABLED" and after.get("status") == "ENABLED":
            assert change.action == "key enable"
        if before.get("state") in ("suspended", "destroy-pending") and after.get("state") != before.get("state"):
            assert change.action.startswith("key generation ")


Replayed = dict[str, dict[str, Any]]


def replay(change: Change, found: Replayed) -> None:
    """Alter what there is as the record says."""
    for effect in change.effects:
        name = effect.subject
        kind = name.partition(" ")[0]
        if kind not in FIELDS:
            continue
        if effect.after is None:
            found.pop(name, None)
            continue
        after = {field: effect.after[field] for field in FIELDS[kind] if field in effect.after}
        if effect.before is None and kind == "key" and " generation " not in name:
            place = {field: effect.after[field] for field in ("hsm", "label")}
            found[f"{name} generation 1"] = {**place, "state": "active"}
            after = {"status": effect.after["status"]}
        if effect.before is None and kind == "keystore":
            after["blocked"] = False
        one = found.setdefault(name, {})
        one.update(after)
        if "blocked" in effect.after:
            one.pop("until", None)
            if "until" in effect.after:
                one["until"] = effect.after["until"]


FIELDS = {
    "keystore": ("prefix", "blocked"),
    "key": ("status", "state", "hsm", "label"),
    "credential": ("keystore", "state"),
}


def rows_of(state: Any) -> Replayed:
    """What the rows say there is, by subject."""
    found: Replayed = {}
    for row in state.keystores():
        found[f"keystore {row.name}"] = {"prefix": row.prefix.value, "blocked": row.blocked}
        if row.blocked_until is not None:
            found[f"keystore {row.name}"]["until"] = f"{row.blocked_until:%Y-%m-%dT%H:%M:%SZ}"
    for row in state.keys(None):
        name = f"key {row.keystore}/{row.external_key_id}"
        found[name] = {"status": row.status.value}
        found[f"{name} generation {row.generation}"] = {"hsm": row.hsm, "label": row.label, "state": row.state.value}
    for row in state.credentials(None):
        life = "live" if row.retired_at is None else "retired"
        found[f"credential {row.access_key_id}"] = {"keystore": row.keystore, "state": life}
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty installation with its token, in which ada administers and bob approves."""
    directory = tmp_path_factory.mktemp("template")
    environment = dict(os.environ)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "bob"], check=True, env=environment
    )
    (directory / "pin").write_text(PIN)
    (directory / "pin").chmod(0o600)
    make_token(directory, ())
    with closing(Catalog.create_or_upgrade(url(directory), directory / "secrets", now=lambda: START)) as catalog:
        control = control_of(directory, catalog, "ada", lambda: START)
        control.do(CreateKeystore(keystore="alpha", prefix="/alpha"))
        control.do(CreateKey(keystore="alpha", external_key_id="one", hsm="main", label="a", cka_id=b"a"))
    return directory


@pytest.mark.parametrize("two_persons", [False, True], ids=["one-person", "two-persons"])
def test_random_sequences_of_changes_crashes_and_node_losses_keep_every_promise(
    template: Path, *, two_persons: bool
) -> None:
    """With the rules of a fresh installation, and with rules that ask for a second person."""
    run_machine(
        cast("Any", partial(Installation, template, two_persons=two_persons)),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # What finds something new must not fail on the change of somebody else.
            derandomize=WANTED is None,
            suppress_health_check=list(HealthCheck),
        ),
    )
