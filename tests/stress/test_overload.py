"""More requests than the HSM can carry: what is accepted is in time, what is not is refused at once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import REGION, SECRET_ACCESS_KEY
from tests.stress.conftest import shim_of
from tests.stress.flood import Flood, encrypt_request
from tests.stress.load import KMS_PATIENCE, EventsSince, totals

from holdfast.xks.sigv4 import Credential
from holdfast.xks.types import AccessKeyId, ExternalKeyId, UriPathPrefix

if TYPE_CHECKING:
    from tests.server.proxy_server import ProxyServer
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

SESSIONS = 2
HSM_SECONDS = 0.04
CAPACITY = SESSIONS / HSM_SECONDS
SECONDS = 3
QUEUE = 6
REFUSED_WITHIN = 50
"""Milliseconds, from the issue's fifth figure."""
TIMES = 4
OTHER = Credential(AccessKeyId.parse("HOLDFASTOTHERACCESSKEY"), SECRET_ACCESS_KEY, REGION)


@pytest.fixture
def server(serve: Serve) -> ProxyServer:
    """A server with two keystores whose Encrypt takes HSM_SECONDS."""
    server = serve("nshield", tls=False, hsm={"sessions": SESSIONS, "queue": QUEUE})
    catalog = server.catalog()
    catalog.create_keystore("other", UriPathPrefix.parse("/other"))
    catalog.issue_credential("other", (OTHER.access_key_id, OTHER.secret_access_key))
    catalog.register_key("other", ExternalKeyId.parse("key-1"), hsm="main", label="key-1", share_with=["test"])
    catalog.close()
    with server.caller(prefix="/other", credential=OTHER) as caller:
        server.eventually(lambda: caller.encrypt(b"known").status == 200, within=2, what="the second keystore")
    shim_of(server).delay(1000 * HSM_SECONDS, ["C_Encrypt"])
    return server


def test_offered_four_times_its_capacity_the_server_carries_it_and_refuses_the_rest_at_once(
    server: ProxyServer,
) -> None:
    with server.caller() as one, server.caller(prefix="/other", credential=OTHER) as other:
        requests = [encrypt_request(one), encrypt_request(other)]
    events = EventsSince(server)
    flood = Flood(server.port, requests, int(TIMES * CAPACITY * SECONDS), 1 / (TIMES * CAPACITY), connections=48)
    queued = []
    with ThreadPoolExecutor(1) as thread:
        flooding = thread.submit(flood.run)
        while not flooding.done():
            queued.append(server.metric("holdfast_hsm_queue_length", hsm="main") or 0)
    statuses = Counter(flooding.result())
    # 503 is an answer that came too late: on a machine with other work some do, which is not the rule.
    assert set(statuses) <= {200, 429, 503}
    assert statuses[503] <= 0.1 * statuses.total()
    assert statuses[200] >= 0.7 * CAPACITY * SECONDS
    assert max(queued) <= QUEUE
    seen = events.wait_for(statuses.total())
    accepted = [event for event in seen if event["status"] == 200]
    assert max(totals(accepted)) < KMS_PATIENCE
    # A machine with other work may stall for longer than this once; it must not be the rule.
    refused = totals([event for event in seen if event["status"] == 429])
    assert sum(milliseconds < REFUSED_WITHIN for milliseconds in refused) >= 0.9 * len(refused)
    share = Counter(event["keystore"] for event in accepted)
    assert min(share["test"], share["other"]) >= 0.2 * len(accepted)
    shim_of(server).clear_faults()
    server.round_trip()
