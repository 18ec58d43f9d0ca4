"""What the HSM is asked for while requests are served: no more than the operation itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.stress.conftest import shim_of

if TYPE_CHECKING:
    from tests.server.proxy_server import ProxyServer

pytestmark = pytest.mark.server

REQUESTS = 10
"""In one window; of each operation."""
WINDOWS = 30
"""A health probe may fall into some of them, not into all."""
NEVER = (
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue", "C_OpenSession",
    "C_CloseSession", "C_GetSessionInfo", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismInfo", "C_Login",
    "C_Initialize",
)  # fmt: skip


def test_no_key_is_looked_for_and_no_session_opened_once_a_key_has_been_used(nshield: ProxyServer) -> None:
    wanted = dict.fromkeys(NEVER, 0) | {"C_Encrypt": REQUESTS, "C_Decrypt": REQUESTS}
    shim = shim_of(nshield)
    with nshield.caller() as caller:
        sealed = {key: caller.encrypt(b"first", key=key) for key in ("key-1", "key-2")}

        def window() -> dict[str, int]:
            before = shim.calls()
            for key in list(sealed) * (REQUESTS // 2):
                assert caller.encrypt(b"again", key=key).status == 200
                assert caller.decrypt(sealed[key], key=key).status == 200
                assert caller.metadata(key=key).status == 200
            after = shim.calls()
            return {function: after.get(function, 0) - before.get(function, 0) for function in wanted}

        made = window()
        for _ in range(WINDOWS):
            if made == wanted:
                break
            made = window()
    assert made == wanted
