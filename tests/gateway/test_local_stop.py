"""The emergency stop as a worker applies it to what the catalog says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from tests.waiting import eventually

from holdfast.gateway.worker.local_stop import LocalStop
from holdfast.keys.model import Keystore, Snapshot
from holdfast.store.errors import Unavailable
from holdfast.store.local_stop import Stop, StopFile, digest_of
from holdfast.xks.types import UriPathPrefix

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.store.store import Catalog

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(hours=1)
LATER = NOW + timedelta(hours=2)


class _SilentCatalog:
    def record_local_stop(self, stop: Stop, *, node: str) -> list[str]:
        raise Unavailable(f"{node} cannot record {stop.id}")


def keystore(name: str, *, blocked: bool, until: datetime | None = None) -> Keystore:
    return Keystore(
        name, UriPathPrefix.parse(f"/{name}"), blocked, None, credentials={}, keys={}, blocked_until=until
    )


def worker(file: StopFile, snapshot: Snapshot, *, place: int = 0) -> LocalStop:
    return LocalStop(
        file,
        cast("Catalog", _SilentCatalog()),
        node="n",
        place=place,
        snapshot=lambda: snapshot,
        on_alarm=print,
        on_notice=print,
    )


@pytest.mark.parametrize("until", [None, UNTIL])
@pytest.mark.parametrize("blocked", [False, True])
def test_what_is_stopped_here_outlasts_the_end_of_a_block_in_a_silent_catalog(
    tmp_path: Path, *, blocked: bool, until: datetime | None
) -> None:
    file = StopFile(tmp_path / "stop")
    file.prepare()
    file.write(Stop(id="00112233", time=NOW, actor="alice", keystores=("alpha",)))
    stop = worker(file, Snapshot(1, {}))
    stop.start()
    try:
        both = {
            "/alpha": keystore("alpha", blocked=blocked, until=until if blocked else None),
            "/beta": keystore("beta", blocked=True, until=UNTIL),
        }
        served = stop.applied(Snapshot(1, both)).keystores
    finally:
        stop.stop()
    assert served["/alpha"].at(LATER).blocked
    assert not served["/beta"].at(LATER).blocked


def test_each_worker_says_what_it_has_taken_over_until_it_ends(tmp_path: Path) -> None:
    file = StopFile(tmp_path / "stop")
    served = Snapshot(1, {"/alpha": keystore("alpha", blocked=False)})
    workers = [worker(file, served, place=place) for place in (0, 1)]
    for each in workers:
        each.start()
    try:
        assert sorted(one.place for one in file.workers()) == [0, 1]
        assert {one.digest for one in file.workers()} == {digest_of(None)}
        for name, unknown in (("alpha", False), ("alpah", True)):
            stop = Stop(id="00112233", time=NOW, actor="alice", keystores=(name,))
            file.write(stop)
            eventually(partial(everybody_says, file, digest_of(stop)), what="both workers have taken it over")
            assert {one.unknown for one in file.workers()} == {unknown}
        file.path.unlink()
        file.prepare()
        eventually(lambda: len(file.workers()) == len(workers), what="they say it of another file by this name")
        workers.pop().stop()
        assert [one.place for one in file.workers()] == [0]
    finally:
        for each in workers:
            each.stop()
    assert file.workers() == []


def everybody_says(file: StopFile, digest: int) -> bool:
    return {one.digest for one in file.workers()} == {digest}
