"""Connecting and disconnecting in the background, and the periodic health check."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace

from holdfast.witness.kms import vpc
from holdfast.witness.kms.gateway import KMS_HEALTH_CHECK, Gateway, Trail
from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms.records import CONNECTED, CONNECTING, DISCONNECTED, DISCONNECTING, FAILED, VPC, KeyStore
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms.state import State
from holdfast.witness.kms_errors import KMS_ERRORS, ConnectionErrorCode

_log = logging.getLogger(__name__)


class Connections:
    """The connection states of every key store. Lives on one event loop, between `start` and `close`."""

    def __init__(self, settings: Settings, state: State, gateway: Gateway) -> None:
        self._settings = settings
        self._state = state
        self._gateway = gateway
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Takes up what an earlier process began, and the periodic health check."""
        for store in self._state.select(KeyStore):
            if store.connection_state == CONNECTING:
                self.connect(store, Trail.of_kms("ConnectCustomKeyStore"))
            elif store.connection_state == DISCONNECTING:
                self.disconnect(store)
        self._run("", self._check_health())

    async def close(self) -> None:
        """Ends every task."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def connect(self, store: KeyStore, trail: Trail) -> None:
        """Begins to connect; DescribeCustomKeyStores shows how it went."""
        self._state.put(replace(store, connection_state=CONNECTING, connection_error_code=None))
        self._run(store.id, self._connect(store.id, trail))

    def disconnect(self, store: KeyStore) -> None:
        """Begins to disconnect, also in the middle of connecting."""
        self._state.put(replace(store, connection_state=DISCONNECTING, connection_error_code=None))
        self._run(store.id, self._disconnect(store.id))

    def _run(self, name: str, work: Coroutine[object, object, None]) -> None:
        if (earlier := self._tasks.pop(name, None)) is not None:
            earlier.cancel()
        self._tasks[name] = asyncio.create_task(work)

    async def _connect(self, store_id: str, trail: Trail) -> None:
        await asyncio.sleep(self._settings.connection_delay)
        store = self._state.find(KeyStore, id=store_id)
        if store is None:
            return
        code = await self._obstacle(store, trail)
        # The store may have been renamed in the meantime.
        store = self._state.find(KeyStore, id=store_id) or store
        outcome = CONNECTED if code is None else FAILED
        self._state.put(replace(store, connection_state=outcome, connection_error_code=code))

    async def _obstacle(self, store: KeyStore, trail: Trail) -> ConnectionErrorCode | None:
        if store.connectivity == VPC:
            code = vpc.problem_of(store, self._settings)
            if code is not None:
                return code
        try:
            await self._gateway.health(store, trail)
        except ProxyFailure as failure:
            return KMS_ERRORS[failure.reason].connection_error_code
        except OSError as error:
            # KMS's own fault: the CA file cannot be read.
            _log.error("connecting %s: %s", store.id, error)
            return ConnectionErrorCode.INTERNAL_ERROR
        except Exception:  # noqa: BLE001 (whatever it is, the store must leave CONNECTING)
            _log.exception("connecting %s failed inside the local KMS", store.id)
            return ConnectionErrorCode.INTERNAL_ERROR
        return None

    async def _disconnect(self, store_id: str) -> None:
        await asyncio.sleep(self._settings.connection_delay)
        self._gateway.forget(store_id)
        store = self._state.find(KeyStore, id=store_id)
        if store is not None:
            self._state.put(replace(store, connection_state=DISCONNECTED))

    async def _check_health(self) -> None:
        while True:
            await asyncio.sleep(self._settings.health_interval)
            for store in self._state.select(KeyStore, connection_state=CONNECTED):
                try:
                    await self._gateway.health(store, Trail.of_kms(KMS_HEALTH_CHECK))
                except ProxyFailure as failure:
                    _log.warning("health check of %s: %s (%s)", store.id, failure.reason, failure.detail)
                except Exception:  # noqa: BLE001 (the next health check must still happen)
                    _log.exception("health check of %s failed inside the local KMS", store.id)
