"""A catalog that goes away under the running server, and counts that must never go back."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import ProxyServer

from holdfast.xks.types import ExternalKeyId, UriPathPrefix

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

STALE_LIMIT = 1.5
STOP = 100


def total(server: ProxyServer) -> int:
    """Encryptions counted under key-1, as the catalog has them."""
    with closing(server.catalog()) as catalog:
        totals = catalog.encryption_totals()
        (row,) = [row for row in catalog.keys("test") if row.external_key_id == "key-1"]
    return totals[row.generation_id]


def configured(directory: Path, tokens: Path, *, workers: int, **tables: dict[str, object]) -> ProxyServer:
    """A server, not started, with more in its tables."""
    server = ProxyServer(directory, tokens, workers=workers, tls=False)
    server.settings.update({name: server.settings.get(name, {}) | table for name, table in tables.items()})
    server.write_config()
    return server


def test_a_catalog_that_is_away_serves_as_last_read_then_blocks_everything_until_it_is_back(
    tmp_path: Path, tokens: Path
) -> None:
    server = configured(tmp_path / "server", tokens, workers=1, catalog={"stale_limit_s": STALE_LIMIT})
    file = server.directory / "catalog.db"
    away = file.with_name("away.db")
    with server, server.caller() as caller:
        sealed = caller.encrypt(b"before")
        file.rename(away)
        server.eventually(
            lambda: (server.metric("holdfast_catalog_age_seconds") or 0) > 0.5, within=5, what="the catalog is missed"
        )
        assert (caller.encrypt(b"as last read").status, caller.decrypt(sealed).status) == (200, 200)
        server.eventually(
            lambda: {caller.encrypt(b"").error, caller.decrypt(sealed).error} == {"InvalidStateException"},
            within=STALE_LIMIT + 3,
            what="everything is blocked",
        )
        server.eventually(lambda: not server.is_ready(), within=2, what="/ready says 503")
        server.eventually(lambda: "ALARM" in server.stderr(), within=2, what="the operator is told")
        away.rename(file)
        server.eventually(lambda: caller.encrypt(b"back").status == 200, within=2, what="an Encrypt is answered")
        assert caller.decrypt(sealed).status == 200


def test_a_catalog_that_is_locked_by_a_writer_delays_no_request(nshield: ProxyServer) -> None:
    with (
        closing(sqlite3.connect(nshield.directory / "catalog.db", isolation_level=None)) as writer,
        nshield.caller() as caller,
    ):
        assert caller.encrypt(b"a first use waits for its reservation").status == 200
        writer.execute("BEGIN EXCLUSIVE")
        replies = [caller.encrypt(b"not waiting") for _ in range(50)]
        writer.execute("ROLLBACK")
    assert {reply.status for reply in replies} == {200}


def test_a_bad_row_of_another_tenant_stops_neither_a_start_nor_a_block(tmp_path: Path, tokens: Path) -> None:
    """A key without a generation once ended every refresh: "blocked", said the command, and Decrypt went on."""
    server = configured(tmp_path / "server", tokens, workers=2)
    with closing(server.catalog()) as operator:
        operator.create_keystore("beta", UriPathPrefix.parse("/beta"))
        operator.register_key("beta", ExternalKeyId.parse("half"), hsm="main", label="half")
    with closing(sqlite3.connect(server.directory / "catalog.db")) as intruder:
        intruder.execute("DELETE FROM key_generations WHERE label = 'half'")
        intruder.execute("UPDATE catalog SET version = version + 1")
        intruder.commit()
    with server, server.caller() as caller:
        sealed = caller.encrypt(b"served all the same")
        assert sealed.status == 200
        assert "the key half (external_keys row " in server.stderr()
        with closing(server.catalog()) as operator:
            operator.set_blocked("test", blocked=True)
        server.eventually(
            lambda: {caller.decrypt(sealed).error for _ in range(4)} == {"InvalidStateException"},
            within=2,
            what="the block is in force",
        )
        server.eventually(lambda: "keystore test: open -> blocked" in server.stderr(), within=2, what="it is told")


def test_the_count_is_never_below_what_was_made_whatever_happens_to_the_workers(serve: Serve) -> None:
    server = serve(workers=2, tls=False)
    made = 0
    for ending in (signal.SIGKILL, signal.SIGTERM):
        before = set(server.worker_pids())
        with server.caller() as caller:
            made += sum(caller.encrypt(b"counted").status == 200 for _ in range(30))
        server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=20, what="two workers")
        assert total(server) >= made
        os.kill(min(server.worker_pids()), ending)
        server.eventually(
            lambda: (
                len(set(server.worker_pids()) - before) >= 1  # noqa: B023 (called before the next turn)
                and server.metric("holdfast_workers_ready") == 2
            ),
            within=20,
            what="a new worker",
        )
        assert total(server) >= made
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.start()
    # What was reserved and not used is the only error: a first block for each worker that was killed.
    assert made <= total(server) <= made + 4 * 4096


def test_starts_and_stops_in_order_count_nothing(serve: Serve) -> None:
    """What a clean stop leaves unused is given back, by every worker and for every key."""
    server = serve(workers=2, tls=False)
    counted = []
    for _ in range(3):
        with server.caller() as caller:
            assert {caller.encrypt(b"counted").status for _ in range(10)} == {200}
        server.stop()
        counted.append(total(server))
        server.start()
    assert 10 <= counted[0] <= 12  # each worker may have made a canary, which is an encryption too
    assert counted[1:] == [counted[0] + 10, counted[0] + 20]


def test_at_its_stop_a_key_only_decrypts_in_every_worker_and_after_a_restart(tmp_path: Path, tokens: Path) -> None:
    limits: dict[str, object] = {"warn": 40, "alarm": 80, "stop": STOP}
    server = configured(tmp_path / "server", tokens, workers=2, encryption_limit=limits)
    with server, ExitStack() as stack:
        server.eventually(lambda: server.metric("holdfast_workers_ready") == 2, within=20, what="two workers")
        callers = [stack.enter_context(server.caller()) for _ in range(12)]
        replies = [caller.encrypt(b"counted") for _ in range(15) for caller in callers]
        sealed = [reply for reply in replies if reply.status == 200]
        assert 0 < len(sealed) <= STOP
        server.eventually(
            lambda: {caller.encrypt(b"over").error for caller in callers} == {"InvalidStateException"},
            within=3,
            what="every worker is at the stop",
        )
        assert all(caller.decrypt(sealed[0]).status == 200 for caller in callers)
        assert "ALARM" in server.stderr()
        # Two workers that reserve at once may both count what is left: too much, never too little.
        counted = total(server)
        assert STOP <= counted < 2 * STOP
        server.stop()
        server.start()
        with server.caller() as caller:
            assert caller.encrypt(b"over").error == "InvalidStateException"
            assert caller.decrypt(sealed[0]).status == 200
        assert total(server) == counted


@pytest.mark.parametrize(
    ("reserved", "words", "warned"),
    [
        (2**30, "plan its replacement before it reaches 2^32", True),
        (2**31, "ALARM: the key 'key-1' in the HSM 'main' has made up to", True),
        (2**30 - 10_000, "plan its replacement", False),
    ],
)
def test_a_key_is_warned_of_at_2_to_the_30th_and_alarmed_of_at_2_to_the_31st(
    tmp_path: Path, tokens: Path, reserved: int, words: str, *, warned: bool
) -> None:
    server = configured(tmp_path / "server", tokens, workers=1)
    reserve(server, reserved)
    with server, server.caller() as caller:
        assert caller.encrypt(b"goes on").status == 200
        server.eventually(
            lambda: (counted_by_metrics(server) or 0) >= reserved, within=5, what="the metric shows the count"
        )
        assert (words in server.stderr()) is warned


def test_without_a_word_of_the_operator_a_key_stops_at_2_to_the_32nd(tmp_path: Path, tokens: Path) -> None:
    left = 5
    server = configured(tmp_path / "server", tokens, workers=1)
    reserve(server, 2**32 - left)
    with server, server.caller() as caller:
        sealed = [caller.encrypt(b"the last ones") for _ in range(left)]
        assert {reply.status for reply in sealed} == {200}
        assert {caller.encrypt(b"over").error for _ in range(5)} == {"InvalidStateException"}
        assert {caller.decrypt(reply).status for reply in sealed} == {200}
        assert caller.encrypt(b"another key", key="key-2").status == 200
        assert caller.metadata().json["keyStatus"] == "ENABLED"
    assert total(server) == 2**32


def reserve(server: ProxyServer, count: int) -> None:
    """Let the catalog count so many encryptions under key-1."""
    with closing(server.catalog()) as catalog:
        (row,) = [row for row in catalog.keys("test") if row.external_key_id == "key-1"]
        catalog.reserve_encryptions(row.generation_id, count)


def counted_by_metrics(server: ProxyServer) -> float | None:
    """Encryptions of key-1 as Prometheus sees them."""
    return server.metric("holdfast_key_encryptions", external_key_id="key-1")
