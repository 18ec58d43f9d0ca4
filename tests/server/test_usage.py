"""Use of keys, recorded by a running server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.administered import Catalog as Administered
from tests.server.client import METADATA
from tests.store.conftest import now

from holdfast.store.store import Catalog
from holdfast.store.usage import Counts, KmsKeyUsage, usage_of
from holdfast.xks.encoding import encode_base64
from holdfast.xks.types import ExternalKeyId, Operation

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server

OTHER_ARN = "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def usage(server: ProxyServer) -> dict[str, KmsKeyUsage]:
    """What the catalog has, by KMS key."""
    file = server.directory / "catalog.db"
    with closing(Catalog.open(f"sqlite:///{file}", server.directory, now=now)) as catalog, catalog.reading() as state:
        return {one.kms_key_arn: one for one in usage_of(state)}


def encrypt(server: ProxyServer, arn: str = METADATA["kmsKeyArn"]) -> int:
    with server.caller() as caller:
        fields = {"plaintext": encode_base64(b"x"), "encryptionAlgorithm": "AES_GCM"}
        return caller.call(Operation.ENCRYPT, fields, metadata={"kmsKeyArn": arn}).status


def test_use_of_all_workers_adds_up_in_the_catalog(serve: Serve) -> None:
    server = serve(workers=2)
    for _ in range(6):
        server.round_trip()
    server.stop()
    (found,) = usage(server).values()
    assert (found.kms_key_arn, found.total) == (METADATA["kmsKeyArn"], Counts(6, 6, 0))
    assert {(caller.kind, caller.name, caller.requests) for caller in found.callers} == {
        ("principal", METADATA["awsPrincipalArn"], 12),
        ("service", METADATA["kmsViaService"], 12),
    }


def test_a_second_kms_key_is_told_to_the_operator(serve: Serve) -> None:
    server = serve()
    assert [encrypt(server), encrypt(server, OTHER_ARN)] == [200, 200]
    server.eventually(lambda: "is used by another KMS key" in server.stderr(), within=30, what="a warning")
    assert set(usage(server)) == {METADATA["kmsKeyArn"], OTHER_ARN}


def test_a_catalog_that_takes_no_writes_delays_no_request_and_gets_the_counts_later(serve: Serve) -> None:
    server = serve()
    assert encrypt(server) == 200
    server.eventually(lambda: bool(usage(server)), within=10, what="the first use")
    with closing(sqlite3.connect(server.directory / "catalog.db", isolation_level=None)) as locked:
        locked.execute("BEGIN IMMEDIATE")
        assert [encrypt(server) for _ in range(20)] == [200] * 20
        locked.execute("ROLLBACK")
    server.stop()
    assert usage(server)[METADATA["kmsKeyArn"]].total.encrypts == 21


def test_a_pin_is_in_force_within_a_second(serve: Serve) -> None:
    server = serve()
    file = server.directory / "catalog.db"
    with (
        closing(Administered.open(f"sqlite:///{file}", server.directory, now=now)) as catalog,
        catalog.change() as transaction,
    ):
        transaction.pin_key("test", ExternalKeyId.parse("key-1"), [OTHER_ARN])
    server.eventually(lambda: encrypt(server) == 403, within=10, what="the pin")
    assert encrypt(server, OTHER_ARN) == 200
    server.eventually(lambda: any(line.get("status") == 403 for line in server.events()), within=10, what="the event")
    refused = next(line for line in server.events() if line["status"] == 403)
    assert (refused["errorName"], refused["decision"]) == ("AccessDeniedException", "deny")
    assert refused["detail"] == "the external key is pinned to another KMS key"
