"""Keys rotate under load, on two nodes with two workers each, one of which is killed: every ciphertext stays good.

`make test` rotates three times, as fast as it goes. `make rotations` rotates each 5 s, with 500 requests a second
beside it, kills a node at random again and again, and prints what it did.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException
from threading import Event
from typing import TYPE_CHECKING

import pytest
from tests.administered import Catalog
from tests.server.proxy_server import HSM, KEYSTORE
from tests.server.token import LIBRARY, PIN, TOKEN, softhsm_environment

from holdfast.xks.aad import CiphertextMetadata
from holdfast.xks.encoding import decode_base64

if TYPE_CHECKING:
    from tests.server.client import Caller, Reply
    from tests.server.proxy_server import ProxyServer
    from tests.shim.control import Personality
    from tests.store.postgresql import Cluster
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

LONG = os.environ.get("HOLDFAST_ROTATIONS")
ROTATIONS = int(LONG or 3)
EVERY = 5.0 if LONG else 0.0
"""Seconds from the beginning of one rotation to the next, where it takes no longer."""
RATE = 500.0 if LONG else 0.0
"""Requests a second; 0: as many as the callers can make."""
CALLERS = 6 if LONG else 3
KILLED_BEFORE = range(3, 2 + ROTATIONS, 4)
"""Generations before which a node is killed."""
PASSING = {"ThrottlingException", "DependencyTimeoutException"}
"""Nothing is said of the ciphertext, and KMS tries again: a node that is killed, or initialises its library."""
KEPT = 300
"""Ciphertexts of each caller that are opened once more at the end."""

TOOL = [
    *("pkcs11-tool", "--module", str(LIBRARY), "--login", "--pin", PIN, "--token-label", TOKEN, "--keygen"),
    *("--key-type", "AES:32", "--sensitive", "--usage-decrypt", "--label"),
]
"""The HSM's own tool, on a library of its own, makes the key of this label."""

_OPERATOR = """
import os, subprocess, sys, time
from holdfast.cli import main
from tests.stress.test_rotation import EVERY, ROTATIONS, TOOL

keystore, key, by_hand, conf, *configs = sys.argv[1:]
began = time.monotonic()

def run(config, *arguments):
    # 17: the change is made, and the node that was killed is not back within the time in which it must confirm it.
    if (code := main(["key", "rotate", *arguments, "--config", config])) not in (0, 17):
        sys.exit(code)

for number in range(2, 2 + ROTATIONS):
    time.sleep(max(0.0, began + EVERY * (number - 2) - time.monotonic()))
    print(number, flush=True)
    if not by_hand:
        run(configs[0], "now", keystore, key, "--yes")
        continue
    run(configs[0], "prepare", keystore, key)
    made = [*TOOL, f"{key}.g{number}"]
    subprocess.run(made, check=True, capture_output=True, env={**os.environ, "SOFTHSM2_CONF": conf})
    run(configs[1], "check", keystore, key)
    run(configs[0], "activate", keystore, key, "--yes")
"""
"""Rotates again and again; or by hand, as on nShield: its own tool makes the HSM key."""

_UNHEARD = """
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tests.administered import Catalog
from holdfast.config.load import load
from holdfast.control.keys import find_or_make, hsm_settings
from holdfast.keys.states import GenerationState, Step
from holdfast.store import rotation

keystore, key, label, config = sys.argv[1:]
configuration = load(Path(config))
catalog = Catalog.open(
    configuration.catalog.url, configuration.catalog.secrets_directory, now=lambda: datetime.now(UTC)
)
with (
    closing(catalog),
    find_or_make(hsm_settings(configuration, None), label, make=False, is_recorded=lambda: True) as proof,
    catalog.change() as transaction,
):
    rotation.plan_generation(transaction, keystore, key, hsm="main", label=label)
    (row,) = (one.generation_id for one in transaction.keys(keystore) if one.state is GenerationState.PLANNED)
    rotation.make_ready(transaction, row, proof)
    rotation.take_step(transaction, row, Step.ACTIVATE)
"""
"""A whole rotation in one version of the catalog: so a node sees it that was cut off meanwhile."""


@pytest.fixture
def nodes(request: pytest.FixtureRequest, serve: Serve, postgresql: Cluster) -> list[ProxyServer]:
    """Two nodes of one fleet: one HSM, one catalog."""
    personality: Personality | None = request.param
    servers = [serve(personality, tls=False, workers=2, autostart=False) for _ in range(2)]
    first = servers[0].settings
    url = postgresql.database()
    with closing(servers[0].catalog()) as made:
        export = made.export()
    with closing(
        Catalog.create_or_upgrade(url, servers[0].directory / "secrets", now=lambda: datetime.now(UTC))
    ) as it:
        it.import_(export)
    for server in servers:
        server.settings["catalog"] = {**first["catalog"], "url": url, "state": str(server.directory / "seen")}
        server.settings["hsm"][HSM]["environment"] |= softhsm_environment(servers[0].directory)
        server.write_config()
        server.start()
    return servers


class Load:
    """Callers who encrypt and decrypt on any node until they are stopped."""

    def __init__(self, nodes: list[ProxyServer]) -> None:
        self.kept: list[tuple[bytes, Reply]] = []
        self.bad: list[str] = []
        self.answers: Counter[str] = Counter()
        self.stopped = Event()
        self._nodes = nodes

    def call(self, seed: int) -> None:
        """One caller. A node that is being killed or started is no answer."""
        callers = [node.caller() for node in self._nodes]
        own: list[tuple[bytes, Reply]] = []
        due = time.monotonic()
        while not self.stopped.is_set():
            if RATE:
                due = max(due + 2 * CALLERS / RATE, time.monotonic() - 1)
                self.stopped.wait(max(0.0, due - time.monotonic()))
            text = b"%d %d" % (seed, len(own))
            try:
                sealed = secrets.choice(callers).encrypt(text)
                self._note(sealed)
                if sealed.status == 200:
                    own.append((text, sealed))
                if own:
                    # The latest one: made a moment ago, perhaps with a generation that the other node has just met.
                    text, sealed = own[-1] if secrets.randbelow(2) else secrets.choice(own)
                    opener = secrets.choice(callers)
                    opened = opener.decrypt(sealed)
                    self._note(opened)
                    if opened.status == 200 and opener.plaintext(opened) != text:
                        self.bad.append("another plaintext")
            except (OSError, HTTPException):
                for caller in callers:
                    caller.close()
                self.stopped.wait(0.05)
        self.kept += own[:: max(1, len(own) // KEPT)]

    def _note(self, reply: Reply) -> None:
        self.answers[reply.error or "good"] += 1
        if reply.status != 200 and reply.error not in PASSING:
            self.bad.append(f"{reply.status} {reply.body.decode()}")


def rotating(nodes: list[ProxyServer], *, by_hand: bool) -> subprocess.Popen[str]:
    """The operator, who says the number of each generation before it is made."""
    configuration = softhsm_environment(nodes[0].directory)["SOFTHSM2_CONF"]
    configs = [str(node.config) for node in nodes]
    tool = "by hand" if by_hand else ""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            _OPERATOR,
            *(KEYSTORE, "key-1", tool, configuration, *configs),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_and_started(node: ProxyServer) -> None:
    """At any moment of the two seconds after this call."""
    time.sleep(secrets.randbelow(2000) / 1000)
    assert node.process is not None
    os.killpg(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.start()


def generation_of(sealed: Reply) -> int:
    return CiphertextMetadata.parse(decode_base64(sealed.json["ciphertextMetadata"], "m")).generation


def until_encrypted_with(node: ProxyServer, generation: int) -> list[tuple[bytes, Reply]]:
    """What a node encrypts with a generation, as soon as it does."""
    found: list[tuple[bytes, Reply]] = []

    def encrypted() -> bool:
        with node.caller() as caller:
            sealed = caller.encrypt(b"last")
            if sealed.status == 200 and generation_of(sealed) == generation:
                found.append((b"last", sealed))
        return bool(found)

    node.eventually(encrypted, within=10, what=f"generation {generation} encrypts")
    return found


def opens(caller: Caller, sealed: Reply, text: bytes) -> bool:
    """Whether a ciphertext opens now. A machine that is too slow is no answer; any other refusal fails."""
    opened = caller.decrypt(sealed)
    assert opened.status == 200 or opened.error in PASSING, opened.body
    return opened.status == 200 and caller.plaintext(opened) == text


@pytest.mark.parametrize("nodes", [None, "nshield"], indirect=True, ids=["softhsm", "nshield"])
def test_no_good_ciphertext_is_refused_while_keys_rotate_and_a_node_dies(
    request: pytest.FixtureRequest, nodes: list[ProxyServer]
) -> None:
    """The nShield shows a key only after C_Initialize; then its nodes look for it by themselves."""
    by_hand = "nshield" in request.node.name
    load = Load(nodes)
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as threads:
        running = [threads.submit(load.call, seed) for seed in range(CALLERS)]
        try:
            with rotating(nodes, by_hand=by_hand) as operator:
                assert operator.stdout is not None
                for line in operator.stdout:
                    if int(line) in KILLED_BEFORE:
                        killed_and_started(secrets.choice(nodes))
                said = operator.stderr.read() if operator.stderr is not None else ""
            assert operator.returncode == 0, said
            for node in nodes:
                load.kept += until_encrypted_with(node, 1 + ROTATIONS)
        finally:
            load.stopped.set()
        for one in running:
            one.result()
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{ROTATIONS} rotations in {seconds:.0f} s, a node killed {len(KILLED_BEFORE)} times;"
        f" {load.answers.total() / seconds:.0f} requests/s: {dict(load.answers)}\n"
    )
    assert load.bad == []
    assert {generation_of(sealed) for _, sealed in load.kept} == set(range(1, 2 + ROTATIONS))
    for node in nodes:
        with node.caller() as caller:
            for text, sealed in load.kept:
                node.eventually(partial(opens, caller, sealed, text), within=10, what="every ciphertext opens")


def test_a_node_that_missed_a_rotation_looks_for_the_key_and_never_says_that_it_is_gone(serve: Serve) -> None:
    """The nShield shows a key only after C_Initialize, and this node had no reason for one so far."""
    server = serve("nshield", tls=False)
    environment = {**os.environ, **softhsm_environment(server.directory)}
    subprocess.run([*TOOL, "unheard"], check=True, capture_output=True, env=environment)
    refusals: list[str] = []

    def encrypts_with_it() -> bool:
        sealed = caller.encrypt(b"text")
        if sealed.status == 200:
            return generation_of(sealed) == 2
        refusals.append(sealed.error)
        return False

    with server.caller() as caller:
        assert generation_of(caller.encrypt(b"text")) == 1
        subprocess.run([sys.executable, "-c", _UNHEARD, KEYSTORE, "key-1", "unheard", str(server.config)], check=True)
        server.eventually(encrypts_with_it, within=60, what="generation 2 encrypts")
    assert set(refusals) <= {"InternalException", *PASSING}
