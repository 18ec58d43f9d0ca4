"""The lifecycle of generations, by its table and by random walks through it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.keys.states import GenerationState, NotAllowed, Standing, Step, after

S = GenerationState
ACTIVE = Standing(S.ACTIVE)

ALLOWED = {
    (Step.MAKE_READY, S.PLANNED): S.READY,
    (Step.ACTIVATE, S.READY): S.ACTIVE,
    (Step.ROLL_BACK, S.RETIRED): S.ACTIVE,
    (Step.SUSPEND, S.RETIRED): S.SUSPENDED,
    (Step.SUSPEND, S.COMPROMISED): S.SUSPENDED,
    (Step.RESUME, S.SUSPENDED): S.RETIRED,
    (Step.COMPROMISE, S.READY): S.COMPROMISED,
    (Step.COMPROMISE, S.RETIRED): S.COMPROMISED,
    (Step.COMPROMISE, S.SUSPENDED): S.SUSPENDED,
    (Step.PLAN_DESTRUCTION, S.SUSPENDED): S.DESTROY_PENDING,
    (Step.KEEP, S.DESTROY_PENDING): S.SUSPENDED,
    (Step.DESTROY, S.DESTROY_PENDING): S.DESTROYED,
}


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("state", [state for state in S if state is not S.ACTIVE])
def test_a_step_leads_where_the_table_says_or_is_refused(step: Step, state: GenerationState) -> None:
    generations = {1: ACTIVE, 2: Standing(state)}
    if (step, state) not in ALLOWED:
        with pytest.raises(NotAllowed, match=f"generation 2 is {state}"):
            after(step, 2, generations)
        return
    changed = after(step, 2, generations)
    assert changed[2].state is ALLOWED[step, state]
    expected = {1, 2} if changed[2].state is S.ACTIVE else {2}
    assert changed.keys() == expected


@pytest.mark.parametrize("step", Step)
def test_no_step_takes_the_active_generation_away(step: Step) -> None:
    with pytest.raises(NotAllowed):
        after(step, 1, {1: ACTIVE})


def test_what_was_compromised_before_it_was_suspended_is_so_after_it() -> None:
    generations = {1: ACTIVE, 2: Standing(S.RETIRED)}
    for step in (Step.COMPROMISE, Step.SUSPEND, Step.RESUME):
        generations |= after(step, 2, generations)
    assert generations[2] == Standing(S.COMPROMISED, compromised=True)
    with pytest.raises(NotAllowed):
        after(Step.ROLL_BACK, 2, generations)


def test_every_state_either_decrypts_or_is_withheld_or_has_no_key_yet() -> None:
    for state in S:
        assert state.decrypts + state.withheld == (state is not S.PLANNED)


class Lifecycle(RuleBasedStateMachine):
    """Random steps on the generations of one key, of which new ones are planned now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.generations = {1: ACTIVE}
        self.gone: set[int] = set()

    @precondition(lambda self: len(self.generations) < 6)
    @rule()
    def plan(self) -> None:
        """One more generation."""
        self.generations[len(self.generations) + 1] = Standing(S.PLANNED)

    @rule(step=st.sampled_from(Step), data=st.data())
    def step(self, step: Step, data: st.DataObject) -> None:
        """Any step on any generation."""
        number = data.draw(st.sampled_from(sorted(self.generations)))
        try:
            changed = after(step, number, self.generations)
        except NotAllowed:
            return
        compromised = {number for number, standing in self.generations.items() if standing.compromised}
        self.generations |= changed
        assert compromised <= {number for number, standing in self.generations.items() if standing.compromised}

    @invariant()
    def exactly_one_is_active(self) -> None:
        """Exactly one encrypts."""
        assert [standing.state for standing in self.generations.values()].count(S.ACTIVE) == 1

    @invariant()
    def what_is_compromised_does_not_encrypt(self) -> None:
        """A compromised key protects nothing new."""
        assert not any(standing.compromised and standing.state is S.ACTIVE for standing in self.generations.values())

    @invariant()
    def what_is_destroyed_stays_so(self) -> None:
        """There is no way back."""
        destroyed = {number for number, standing in self.generations.items() if standing.state is S.DESTROYED}
        assert self.gone <= destroyed
        self.gone = destroyed


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(deadline=None)


@given(st.permutations(list(Step)))
def test_no_order_of_steps_on_one_generation_activates_what_was_never_ready(steps: list[Step]) -> None:
    generations = {1: ACTIVE, 2: Standing(S.PLANNED)}
    seen = []
    for step in steps:
        try:
            generations |= after(step, 2, generations)
            seen.append(step)
        except NotAllowed:
            continue
    if Step.ACTIVATE in seen:
        assert seen.index(Step.MAKE_READY) < seen.index(Step.ACTIVATE)
