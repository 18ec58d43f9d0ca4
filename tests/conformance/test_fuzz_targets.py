"""Every fuzz target's invariant holds on its seeds; without Atheris, so that a target cannot rot unseen."""

import importlib
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
HELPERS = {"harness", "bodies"}
TARGETS = sorted(path.stem for path in FUZZ.glob("*.py") if path.stem not in HELPERS)
SEEDS = [(target, seed) for target in TARGETS for seed in sorted((FUZZ / "corpus" / target).glob("*"))]


@pytest.mark.parametrize(("target", "seed"), SEEDS, ids=lambda value: getattr(value, "name", value))
def test_the_invariant_holds_on_a_seed(target: str, seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    try:
        importlib.import_module(target).invariant(seed.read_bytes())
    finally:
        for name in {*TARGETS, *HELPERS}:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_has_seeds_and_is_run_by_make_fuzz(target: str) -> None:
    assert sum(name == target for name, _ in SEEDS) >= 4
    assert f" {target}" in (FUZZ / "run.sh").read_text().replace("(", " ")


@pytest.mark.parametrize("target", TARGETS)
def test_the_first_line_of_a_target_is_its_invariant(target: str) -> None:
    first = (FUZZ / f"{target}.py").read_text().splitlines()[0]
    assert first.startswith('"""')
    assert len(first.split()) > 8
