"""The emergency stop as a worker applies it to what the catalog says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from holdfast.gateway.worker.local_stop import LocalStop
from holdfast.keys.model import Keystore, Snapshot
from holdfast.store.errors import Unavailable
from holdfast.store.local_stop import Stop, StopFile
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


@pytest.mark.parametrize("until", [None, UNTIL])
@pytest.mark.parametrize("blocked", [False, True])
def test_what_is_stopped_here_outlasts_the_end_of_a_block_in_a_silent_catalog(
    tmp_path: Path, *, blocked: bool, until: datetime | None
) -> None:
    file = StopFile(tmp_path / "stop")
    file.prepare()
    file.write(Stop(id="00112233", time=NOW, actor="alice", keystores=("alpha",)))
    stop = LocalStop(file, cast("Catalog", _SilentCatalog()), node="n", on_alarm=print, on_notice=print)
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
