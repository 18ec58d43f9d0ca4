"""The witness over HTTP: what it cosigns, what it refuses, and what it never forgets."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from tests.audit.logs import LOG, ORIGIN, MemoryLog, ecdsa, ed25519, entries
from tests.waiting import PATIENCE

from holdfast import durable
from holdfast.audit.keys import SignatureType
from holdfast.audit.note import MAX_NOTE, Note
from holdfast.audit.tiles import CHECKPOINT, Tiles
from holdfast.audit.witness import ask, take
from holdfast.gateway.cosigner import CheckpointStore, Cosigner, CosignerServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITNESS = ed25519("witness.example", number=3, kind=SignatureType.COSIGNATURE)


@contextmanager
def serving(directory: Path) -> Iterator[tuple[CosignerServer, list[str]]]:
    said: list[str] = []
    one = Cosigner(
        CheckpointStore(directory), {ORIGIN: [LOG.key]}, (WITNESS.key, WITNESS.sign), now=lambda: 1_800_000_000.5
    )
    with CosignerServer(("127.0.0.1", 0), one, say=said.append) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, said
        server.shutdown()
        thread.join()


def send(server: CosignerServer, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
    connection.request(method, path, body)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.getheader("Content-Type")
    connection.close()
    return found


def shown(log: MemoryLog, *, old: int) -> bytes:
    return ask(Tiles(log.files.get, log.edge.size), Note.parse(log.files[CHECKPOINT]), old=old)


def test_a_log_that_goes_on_is_cosigned_also_after_a_restart_of_the_witness(tmp_path: Path) -> None:
    log, old = MemoryLog(), 0
    for size in (1, 300, 301):
        log.append(*entries(size - old, first=old))
        with serving(tmp_path) as (server, said):
            status, answer, _ = send(server, "POST", "/add-checkpoint", shown(log, old=old))
            assert (status, said) == (200, [])
            note = take(Note.parse(log.files[CHECKPOINT]), answer, [WITNESS.key])
            path = f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
            assert send(server, "GET", path)[:2] == (200, note.encode())
        old = size


def test_another_history_is_refused_and_the_first_one_kept(tmp_path: Path) -> None:
    log = MemoryLog().append(*entries(3))
    other = MemoryLog().append(*entries(5, first=100))
    with serving(tmp_path) as (server, said):
        assert send(server, "POST", "/add-checkpoint", shown(log, old=0))[0] == 200
        assert send(server, "POST", "/add-checkpoint", shown(other, old=3))[0] == 422
        assert send(server, "POST", "/add-checkpoint", shown(other, old=0)) == (409, b"3\n", "text/x.tlog.size")
        assert len(said) == 2
        assert send(server, "POST", "/add-checkpoint", shown(log.append(*entries(1, first=3)), old=3))[0] == 200


def test_a_log_that_it_does_not_know_is_refused(tmp_path: Path) -> None:
    stranger = MemoryLog(ecdsa("another.example/log", number=9)).append(*entries(1))
    forged = MemoryLog(ecdsa(number=9)).append(*entries(1))
    with serving(tmp_path) as (server, _):
        assert send(server, "POST", "/add-checkpoint", shown(stranger, old=0))[0] == 404
        assert send(server, "POST", "/add-checkpoint", shown(forged, old=0))[0] == 403
        assert send(server, "GET", f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")[0] == 404


@pytest.mark.parametrize("path", ["/", "/../seen", f"/{'0' * 64}/checkpoint", "/%2e%2e/checkpoint", "/checkpoint"])
def test_nothing_else_is_served(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as (server, _):
        assert send(server, "GET", path)[0] == 404


def test_what_is_too_long_or_no_request_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, _):
        assert send(server, "POST", "/add-checkpoint", b"old 0\n")[0] == 400
        assert send(server, "POST", "/other", b"")[0] == 404
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
        connection.putrequest("POST", "/add-checkpoint")
        connection.putheader("Content-Length", str(2 * MAX_NOTE + 1))
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()


def test_what_cannot_be_kept_is_not_cosigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    log = MemoryLog().append(*entries(1))
    with serving(tmp_path) as (server, said):
        with monkeypatch.context() as patch:
            patch.setattr(durable, "create", full)
            assert send(server, "POST", "/add-checkpoint", shown(log, old=0))[0] == 500
        assert "cannot be kept" in said[0]
        assert send(server, "POST", "/add-checkpoint", shown(log, old=0))[0] == 200
