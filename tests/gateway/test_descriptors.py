"""How a worker shares its file descriptors out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.config.load import parse
from holdfast.gateway.worker.descriptors import (
    FEWEST_CONNECTIONS,
    HEALTH_CONNECTIONS,
    PER_SESSION,
    RESERVE,
    TooFewDescriptors,
    needed,
    share_out,
)

CONFIGURATION = parse(
    """
    [server]
    listen = "127.0.0.1:1"
    health_listen = "127.0.0.1:2"
    [hsm.one]
    profile = "softhsm2"
    library = "/l"
    token = { label = "t" }
    health_key = "h"
    sessions = 3
    [hsm.two]
    profile = "softhsm2"
    library = "/l"
    token = { label = "u" }
    health_key = "h"
    sessions = 5
    """,
    Path("holdfast.toml"),
)
OWN = RESERVE + PER_SESSION * 8


def test_with_enough_descriptors_every_connection_of_the_configuration_has_a_place() -> None:
    assert needed(CONFIGURATION) == OWN + HEALTH_CONNECTIONS + 12_000
    shares = share_out(CONFIGURATION, needed(CONFIGURATION))
    assert (shares.connections, shares.health) == (12_000, HEALTH_CONNECTIONS)


@pytest.mark.parametrize("descriptors", [300, 512, 1024, 4096, 20_000, 1_000_000])
def test_connections_never_take_what_sessions_and_the_worker_itself_need(descriptors: int) -> None:
    shares = share_out(CONFIGURATION, descriptors)
    assert shares.connections >= FEWEST_CONNECTIONS
    assert shares.health >= 1
    assert shares.connections + shares.health + OWN <= descriptors


def test_where_too_few_are_left_there_is_no_start() -> None:
    with pytest.raises(TooFewDescriptors, match="RLIMIT_NOFILE") as caught:
        share_out(CONFIGURATION, OWN + FEWEST_CONNECTIONS)
    fewest = re.search(r"([0-9]+) are the fewest", str(caught.value))
    assert fewest is not None
    assert share_out(CONFIGURATION, int(fewest[1])).connections >= FEWEST_CONNECTIONS


def test_a_configuration_that_asks_for_few_connections_starts_with_few_descriptors() -> None:
    few = replace(CONFIGURATION, server=replace(CONFIGURATION.server, max_connections=5))
    assert share_out(few, OWN + 6).connections == 5
