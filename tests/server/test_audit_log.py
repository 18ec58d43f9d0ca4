"""The audit log of a server that runs: signed in the HSM, verified from its files, whatever was killed when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.audit.test_foreign import foreign
from tests.ports import free_ports
from tests.server.proxy_server import AUDIT_LOG, ProxyServer
from tests.waiting import PATIENCE

from holdfast.audit.checkpoint import Checkpoint
from holdfast.audit.faults import AuditFault
from holdfast.audit.keys import SignatureType, VerifierKey
from holdfast.audit.note import Note
from holdfast.audit.records import Change, Segment, decode, segment_lines, segment_path
from holdfast.audit.tiles import CHECKPOINT, Tiles
from holdfast.audit.verify import Verified, verify_log
from holdfast.store.log_directory import directory_reader
from holdfast.store.node_log import SPOOL
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.conftest import Serve

__all__ = ["foreign"]
CONTROL_LOG = "holdfast.test/control"
pytestmark = pytest.mark.server


def key_of(server: ProxyServer) -> VerifierKey:
    """As `holdfast audit key show` prints it."""
    shown = holdfast(server, "audit", "key", "show", "--config", str(server.config))
    return VerifierKey.parse(shown.stdout.split()[0])


def holdfast(server: ProxyServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=server.directory,
    )


def verified(server: ProxyServer, key: VerifierKey) -> Verified:
    """What an auditor finds in the files."""
    return verify_log(directory_reader(server.audit_directory), [key])


def logged(server: ProxyServer) -> list[dict[str, Any]]:
    """Every event in a segment that is signed."""
    read = directory_reader(server.audit_directory)
    raw = read(CHECKPOINT)
    if raw is None:
        return []
    size = Checkpoint.parse(Note.parse(raw).text).size
    files = Tiles(read, size)
    records = [decode(files.entry(index)) for index in range(size)]
    segments = [record for record in records if isinstance(record, Segment)]
    return [
        msgspec.json.decode(line)
        for segment in segments
        for line in segment_lines(read(segment_path(segment.sha256)) or b"")
    ]


def wait_logged(server: ProxyServer, count: int) -> None:
    server.eventually(lambda: len(logged(server)) >= count, within=15, what=f"{count} events in the audit log")


def test_the_log_of_a_running_server_is_signed_in_the_hsm_and_verifies(serve: Serve) -> None:
    server = serve(workers=2, audit={})
    for _ in range(3):
        server.round_trip()
    wait_logged(server, 6)
    key = key_of(server)
    assert (key.name, key.type) == (AUDIT_LOG, SignatureType.ECDSA)
    assert verified(server, key).events == 6
    proved = holdfast(server, "audit", "verify", "audit", "--key", str(key))
    assert (proved.returncode, "The log is what was signed" in proved.stderr) == (0, True), proved.stderr
    assert server.stop() == 0
    total = verified(server, key)
    assert (total.events, total.lost, total.cut) == (6, 0, 0)
    # Which worker's lines are sealed first is not said; each worker's are in their order.
    in_log = sorted(logged(server), key=lambda event: event["worker"])
    assert in_log == sorted(server.events(), key=lambda event: (event["worker"], event["timestamp"]))


def test_one_request_is_proved_by_its_id_in_the_cloudtrail_record(serve: Serve) -> None:
    server = serve(audit={})
    with server.caller() as caller:
        assert caller.encrypt(b"text").status == 200
        assert caller.request("GET", "/").status == 404
    wait_logged(server, 1)
    wanted = logged(server)[0]
    made = holdfast(server, "audit", "prove", "audit", wanted["kmsRequestId"], "--output", "p.tlog-proof")
    assert made.returncode == 0, made.stderr
    shown = holdfast(server, "audit", "check-proof", "p.tlog-proof", "--key", str(key_of(server)))
    assert shown.returncode == 0, shown.stderr
    assert msgspec.json.decode(shown.stdout) == wanted


def test_without_a_place_for_the_record_there_is_no_answer_and_it_recovers(serve: Serve) -> None:
    """`fail_closed`, and a full disk: no file of the worker may grow."""
    server = serve(audit={"fail_closed": True})
    assert server.process is not None
    with server.caller(patient=False) as caller:
        assert caller.call(Operation.GET_KEY_METADATA).status == 200
        wait_logged(server, 1)
        sealer = sealer_pid(server)
        (worker,) = (pid for pid in server.worker_pids() if pid != sealer)
        prlimit(worker, RLIMIT_FSIZE, (0, RLIM_INFINITY))
        reply = caller.call(Operation.GET_KEY_METADATA)
        assert (reply.status, reply.error) == (503, "DependencyTimeoutException")
        with server.caller(health_port=True) as balancer:
            reasons = balancer.request("GET", "/ready").json["reasons"]
        assert "the audit log cannot be written: File too large" in reasons
        server.eventually(lambda: server.metric("holdfast_audit_failing") == 1, within=10, what="the metric shows it")
        prlimit(worker, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
        server.eventually(server.is_ready, within=10, what="it recovers by itself")
        assert caller.call(Operation.GET_KEY_METADATA).status == 200
    assert server.stop() == 0
    assert (verified(server, key_of(server)).lost, verified(server, key_of(server)).cut) == (0, 0)
    statuses = [event["status"] for event in logged(server)]
    assert (statuses.count(200), 503 in statuses) == (2, True)


def test_an_hsm_that_cannot_sign_delays_the_signature_and_no_request(serve: Serve) -> None:
    server = serve("cloudhsm", audit={})
    assert server.shim is not None
    server.round_trip()
    wait_logged(server, 2)
    server.shim.fail("C_Sign", 0x30)
    server.round_trip()
    server.eventually(lambda: "ALARM: the audit log: it cannot be signed" in server.stderr(), within=15, what="alarm")
    server.eventually(lambda: server.metric("holdfast_audit_failing") == 1, within=10, what="the metric shows it")
    server.round_trip()
    server.shim.clear_faults()
    wait_logged(server, 6)
    assert server.metric("holdfast_audit_events_lost_total") == 0
    assert verified(server, key_of(server)).events == 6


def test_go_verifies_the_log_of_a_running_server(serve: Serve, foreign: Path) -> None:
    """Tessera's fsck and Go's tlog, with the HSM's key; while the server goes on."""
    server = serve(audit={})
    for round_trips in range(1, 4):
        server.round_trip()
        wait_logged(server, 2 * round_trips)
    copy = server.directory / "copy"
    shutil.copytree(server.audit_directory, copy, ignore=shutil.ignore_patterns(SPOOL, ".lock"))
    done = subprocess.run([foreign, "check-log", copy, str(key_of(server))], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("victim", ["supervisor", "worker", "sealer"])
def test_sigkill_forks_nothing_and_loses_no_event_that_was_spooled(serve: Serve, victim: str) -> None:
    server = serve(audit={})
    assert server.process is not None
    key = key_of(server)
    answered = 0
    for _ in range(2):
        server.round_trip()
        answered += 2
        server.wait_for_events(answered)
        before = Note.parse((server.audit_directory / CHECKPOINT).read_bytes()) if logged(server) else None
        kill(server, victim)
        wait_logged(server, answered)
        found = verified(server, key)
        assert found.events == answered
        if before is not None:
            assert Checkpoint.parse(before.text).size <= found.signed.checkpoint.size
    assert server.stop() == 0
    assert verified(server, key).lost == 0


def test_each_change_of_an_operator_is_a_leaf_of_the_control_log(serve: Serve) -> None:
    """Also one that was made while nothing ran that could log it."""
    server = serve(audit={"control_directory": "control", "control_name": CONTROL_LOG})
    node = key_of(server)
    key = VerifierKey(CONTROL_LOG, node.type, node.public)
    change(server, "keystore", "block", "test", "--reason", "a drill")
    server.eventually(lambda: len(control_log(server)) == 1, within=15, what="the change in the control log")
    assert server.stop() == 0
    change(server, "keystore", "unblock", "test")
    server.start()
    server.eventually(lambda: len(control_log(server)) == 2, within=15, what="the change made meanwhile")
    assert server.stop() == 0
    verify_log(directory_reader(server.directory / "control"), [key])
    block, unblock = control_log(server)
    assert (block.action, block.reason, block.outcome) == ("keystore block", "a drill", "applied")
    assert unblock.action == "keystore unblock"
    made = holdfast(server, "audit", "prove", "control", block.id, "--output", "block.tlog-proof")
    assert made.returncode == 0, made.stderr
    shown = holdfast(server, "audit", "check-proof", "block.tlog-proof", "--key", str(key))
    assert (shown.returncode, msgspec.json.decode(shown.stdout)["id"]) == (0, block.id)


def test_an_auditor_proves_a_drill_from_files_alone(serve: Serve, tmp_path: Path) -> None:
    """Block, drill, unblock; then on a machine without configuration, catalog and HSM: who, what and when."""
    server = serve(audit={"control_directory": "control", "control_name": CONTROL_LOG})
    keys = tmp_path / "keys"
    keys.write_text(holdfast(server, "audit", "key", "show", "--config", str(server.config)).stdout)
    with server.caller() as caller:
        assert caller.encrypt(b"before").status == 200
        change(server, "keystore", "block", "test", "--reason", "drill 7")
        server.eventually(lambda: caller.encrypt(b"during").status != 200, within=15, what="blocked")
        change(server, "keystore", "unblock", "test", "--reason", "drill 7 is over")
        server.eventually(lambda: caller.encrypt(b"after").status == 200, within=15, what="open again")
    assert server.stop() == 0

    # What the auditor takes away.
    office = tmp_path / "office"
    for log in ("audit", "control"):
        shutil.copytree(server.directory / log, office / log, ignore=shutil.ignore_patterns(SPOOL, ".lock"))
    for log in ("audit", "control"):
        done = alone(office, "audit", "verify", log, "--key", str(keys))
        assert (done.returncode, "is what was signed" in done.stderr) == (0, True), done.stderr
    block, unblock = control_log(server)
    assert (block.action, unblock.action) == ("keystore block", "keystore unblock")
    assert alone(office, "audit", "prove", "control", block.id, "--output", "p.tlog-proof").returncode == 0
    shown = alone(office, "audit", "check-proof", "p.tlog-proof", "--key", str(keys))
    record = msgspec.json.decode(shown.stdout)
    assert (record["reason"], record["effects"][0]["after"]) == ("drill 7", {"blocked": True})
    assert (record["actor"]["name"], record["actor"]["known_by"]) == (block.actor.name, block.actor.known_by)

    def of(event: dict[str, Any]) -> datetime:
        return datetime.fromisoformat(event["timestamp"]) + timedelta(milliseconds=1)  # it was rounded down

    events = logged(server)
    denied = [event for event in events if event["decision"] == "deny"]
    assert denied, "the drill stopped requests"
    assert all(block.time <= of(event) for event in denied)
    assert all(of(event) >= unblock.time for event in events if of(event) > of(denied[-1]))


def alone(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a directory with nothing but copies of logs."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=directory,
        env={"PATH": os.environ["PATH"]},
    )


@contextmanager
def witness(directory: Path, *logs: VerifierKey) -> Iterator[tuple[str, str]]:
    """`holdfast audit witness` as a process: its URL and its verifier key."""
    (port,) = free_ports(1)
    arguments = ["--directory", directory / "seen", "--key-file", directory / "witness.pem"]
    for log in logs:
        arguments += ["--log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", "audit", "witness", "auditor.example", "--listen", f"127.0.0.1:{port}"]
        + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{port}", process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_witness_cosigns_and_refuses_another_history(serve: Serve, tmp_path: Path) -> None:
    """As somebody makes it who has the HSM's key and the directory: the log begins anew."""
    server = serve(audit={}, autostart=False)
    key = key_of(server)
    with witness(tmp_path, key) as (url, witness_key):
        server.settings["audit"] |= {"witness_url": url, "witness_key": witness_key}
        server.write_config()
        server.start()
        server.round_trip()
        wait_logged(server, 2)
        server.eventually(lambda: cosigned(server, key, witness_key), within=15, what="a cosignature")
        assert server.stop() == 0
        shutil.rmtree(server.audit_directory)
        server.start()
        server.round_trip()
        server.eventually(
            lambda: "the witness auditor.example does not cosign" in server.stderr(), within=15, what="x"
        )
        assert not cosigned(server, key, witness_key)


def cosigned(server: ProxyServer, key: VerifierKey, witness_key: str) -> bool:
    """Whether the last checkpoint is."""
    try:
        verify_log(directory_reader(server.audit_directory), [key], witnesses=[VerifierKey.parse(witness_key)])
    except AuditFault:
        return False
    return True


def change(server: ProxyServer, *arguments: str) -> None:
    """A change on the command line."""
    done = holdfast(server, *arguments, "--yes", "--config", str(server.config))
    assert done.returncode == 0, done.stderr


def control_log(server: ProxyServer) -> list[Change]:
    """What is signed of the control log and was done to keystores; nodes record what they find out, too."""
    read = directory_reader(server.directory / "control")
    raw = read(CHECKPOINT)
    size = 0 if raw is None else Checkpoint.parse(Note.parse(raw).text).size
    records = [decode(Tiles(read, size).entry(index)) for index in range(size)]
    return [record for record in records if isinstance(record, Change) and record.action.startswith("keystore ")]


def kill(server: ProxyServer, victim: str) -> None:
    """SIGKILL one process, and wait until the server serves again."""
    assert server.process is not None
    if victim == "supervisor":
        server.process.kill()
        server.process.wait()
        server.start()
        return
    sealer = sealer_pid(server)
    others = [pid for pid in server.worker_pids() if pid != sealer]
    replaced = server.metric("holdfast_workers_replaced_total") or 0
    os.kill(sealer if victim == "sealer" else others[0], signal.SIGKILL)
    if victim == "worker":
        server.eventually(
            lambda: (server.metric("holdfast_workers_replaced_total") or 0) > replaced, within=15, what="a new worker"
        )
        server.wait_ready()


def sealer_pid(server: ProxyServer) -> int:
    """The process that has the log open."""
    lock = server.audit_directory / ".lock"
    for pid in server.worker_pids():
        with suppress(FileNotFoundError):
            if any(os.path.realpath(link) == str(lock) for link in Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    raise AssertionError("no process has the audit log open")
