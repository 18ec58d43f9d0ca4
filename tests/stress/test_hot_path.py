"""What the HSM is asked for while requests are served: no more than the operation itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.stress.conftest import shim_of

if TYPE_CHECKING:
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server

REQUESTS = 40
NEVER = (
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue", "C_OpenSession",
    "C_CloseSession", "C_GetSessionInfo", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismInfo", "C_Login",
    "C_Initialize",
)  # fmt: skip


def test_no_key_is_looked_for_and_no_session_opened_once_a_key_has_been_used(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    with nshield.caller() as caller:
        sealed = {key: caller.encrypt(b"first", key=key) for key in ("key-1", "key-2")}
        before = shim.calls()
        for key in list(sealed) * (REQUESTS // 2):
            assert caller.encrypt(b"again", key=key).status == 200
            assert caller.decrypt(sealed[key], key=key).status == 200
            assert caller.metadata(key=key).status == 200
        after = shim.calls()
    made = {function: after.get(function, 0) - before.get(function, 0) for function in after}
    assert {function: made.get(function, 0) for function in NEVER} == dict.fromkeys(NEVER, 0)
    # A health probe may have come in between.
    assert REQUESTS <= made["C_Encrypt"] <= REQUESTS + 3
    assert REQUESTS <= made["C_Decrypt"] <= REQUESTS + 3
