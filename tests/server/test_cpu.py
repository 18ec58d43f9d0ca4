"""Which CPUs the workers run on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from holdfast.gateway.worker.start import cpu_of
from holdfast.gateway.worker.worker import bind_to_cpu

if TYPE_CHECKING:
    from tests.server.conftest import Serve

pytestmark = pytest.mark.server


def test_each_worker_has_a_cpu_of_its_own(serve: Serve) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("this machine has one CPU")
    server = serve(workers=2)
    bound = [os.sched_getaffinity(pid) for pid in server.worker_pids()]
    assert [len(own) for own in bound] == [1, 1]
    assert len(set.union(*bound)) == 2


def test_more_workers_than_cpus_are_not_bound() -> None:
    count = len(os.sched_getaffinity(0))
    assert cpu_of(0, count + 1) is None


def test_a_sandbox_that_forbids_it_does_not_stop_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seccomp filter without sched_setaffinity answers EPERM."""

    def forbidden(_pid: int, _cpus: set[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    bind_to_cpu(0)
