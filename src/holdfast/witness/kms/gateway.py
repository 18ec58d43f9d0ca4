"""XKS calls as KMS makes them: to the right address, measured, and with every response checked."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from holdfast.witness.kms.metrics import CloudWatch
from holdfast.witness.kms.proxy_client import Endpoint, ProxyClient, ProxyFailure, Reply, tls_context
from holdfast.witness.kms.rate import TokenBucket
from holdfast.witness.kms.records import PUBLIC, KeyStore
from holdfast.witness.kms.settings import Address, Settings
from holdfast.witness.kms_errors import Failure
from holdfast.xks import sigv4
from holdfast.xks.aad import ciphertext_data_integrity_value
from holdfast.xks.errors import XksError
from holdfast.xks.messages import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    GetHealthStatusRequest,
    GetHealthStatusResponse,
    GetKeyMetadataRequest,
    GetKeyMetadataResponse,
    RequestMetadata,
)
from holdfast.xks.types import AccessKeyId, ExternalKeyId, HealthStatus, Operation, SecretAccessKey
from holdfast.xks.uri import Target

_T = TypeVar("_T")

MAX_FLEET_DETAILS = 10
MAX_KEY_USAGES = 10
KMS_HEALTH_CHECK = "KmsHealthCheck"
"""Spec, "GetHealthStatus": the `kmsOperation` of the periodic check."""


@dataclass(frozen=True, slots=True)
class XksNote:
    """One call of the proxy, for the event log. `detail` is the proxy's `errorMessage` or the cause."""

    operation: Operation
    milliseconds: float
    error: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class Trail:
    """The request metadata of one KMS request, and the proxy calls that it led to."""

    metadata: RequestMetadata
    notes: list[XksNote] = field(default_factory=list)

    @classmethod
    def of_kms(cls, kms_operation: str) -> "Trail":
        """A trail of KMS's own doing, with a new request id."""
        return cls(RequestMetadata(kms_operation, str(uuid.uuid4())))


class Gateway:
    """KMS's side of every external key store: one client, one quota each."""

    def __init__(
        self, settings: Settings, metrics: CloudWatch, *, now: Callable[[], datetime], clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._clients: dict[str, tuple[Endpoint, ProxyClient]] = {}
        self._quotas: dict[str, TokenBucket] = {}

    def close(self) -> None:
        """Closes every connection."""
        for store_id in list(self._clients):
            self._hang_up(store_id)

    def forget(self, store_id: str) -> None:
        """Closes the connections of a key store that is disconnected or gone, and what is known of its proxy."""
        self._hang_up(store_id)
        self._metrics.proxy_forgotten(store_id)

    def admit(self, store_id: str, kms_operation: str) -> bool:
        """Whether the key store's request quota has room for one more cryptographic operation."""
        now = self._clock()
        quota = self._quotas.setdefault(store_id, TokenBucket.full(self._settings.requests_per_second, now))
        admitted = quota.take(now)
        if not admitted:
            self._metrics.throttled(store_id, kms_operation)
        return admitted

    async def health(self, store: KeyStore, trail: Trail) -> GetHealthStatusResponse:
        """Raises ProxyFailure, FLEET_UNAVAILABLE if no external key manager can serve."""
        body = GetHealthStatusRequest(
            RequestMetadata(trail.metadata.kms_operation, trail.metadata.kms_request_id)
        ).to_json()
        response = await self._exchange(
            store, Target(store.path_prefix, Operation.GET_HEALTH_STATUS, None), body, _parse_health, trail
        )
        self._metrics.health_reported(store.id, response)
        self._metrics.credential_aged(store.id, self._now().timestamp() - store.credential_since)
        if all(detail.health_status is HealthStatus.UNAVAILABLE for detail in response.ekm_fleet_details):
            raise ProxyFailure(Failure.FLEET_UNAVAILABLE, "every external key manager is UNAVAILABLE")
        return response

    async def key_metadata(self, store: KeyStore, xks_key_id: str, trail: Trail) -> GetKeyMetadataResponse:
        """Raises ProxyFailure."""
        body = GetKeyMetadataRequest(trail.metadata).to_json()
        return await self._exchange(
            store, _target(store, xks_key_id, Operation.GET_KEY_METADATA), body, _parse_key_metadata, trail
        )

    async def encrypt(
        self, store: KeyStore, xks_key_id: str, *, plaintext: bytes, aad: bytes, trail: Trail
    ) -> EncryptResponse:
        """The response, with its CDIV verified. Raises ProxyFailure."""
        request = EncryptRequest(trail.metadata, plaintext, aad, wants_cdiv=True)

        def parse(body: bytes) -> EncryptResponse:
            response = EncryptResponse.parse(body)
            _require(len(response.ciphertext) == len(plaintext), "ciphertext and plaintext differ in length")
            expected = ciphertext_data_integrity_value(
                aad,
                response.ciphertext_metadata or b"",
                initialization_vector=response.initialization_vector,
                ciphertext=response.ciphertext,
                tag=response.authentication_tag,
            )
            _require(response.ciphertext_data_integrity_value == expected, "the CDIV is missing or wrong")
            return response

        target = _target(store, xks_key_id, Operation.ENCRYPT)
        return await self._exchange(store, target, request.to_json(), parse, trail)

    async def decrypt(
        self, store: KeyStore, xks_key_id: str, *, sealed: EncryptResponse, aad: bytes, trail: Trail
    ) -> bytes:
        """The plaintext of what `encrypt` gave. Raises ProxyFailure."""
        request = DecryptRequest(
            trail.metadata,
            sealed.ciphertext,
            sealed.initialization_vector,
            sealed.authentication_tag,
            aad,
            sealed.ciphertext_metadata,
        )

        def parse(body: bytes) -> bytes:
            plaintext = DecryptResponse.parse(body).plaintext
            _require(len(plaintext) == len(sealed.ciphertext), "plaintext and ciphertext differ in length")
            return plaintext

        target = _target(store, xks_key_id, Operation.DECRYPT)
        return await self._exchange(store, target, request.to_json(), parse, trail)

    async def _exchange(
        self, store: KeyStore, target: Target, body: bytes, parse: Callable[[bytes], _T], trail: Trail
    ) -> _T:
        client = self._client(store)
        started = self._clock()
        failure: ProxyFailure | None = None
        try:
            reply = await client.call(target, body)
            self._note_certificate(store, reply)
            return parse(reply.body)
        except ProxyFailure as error:
            failure = error
            raise
        except XksError as error:
            # The proxy's response broke the rules of the message it should be.
            failure = ProxyFailure(Failure.MALFORMED_RESPONSE, error.message)
            raise failure from None
        finally:
            self._note(store, target.operation, self._clock() - started, failure, trail)

    def _note(
        self, store: KeyStore, operation: Operation, seconds: float, failure: ProxyFailure | None, trail: Trail
    ) -> None:
        kms_operation = trail.metadata.kms_operation
        self._metrics.call_ended(store.id, kms_operation, operation, seconds)
        milliseconds = round(seconds * 1000, 1)
        if failure is None:
            trail.notes.append(XksNote(operation, milliseconds))
            return
        self._metrics.call_failed(store.id, kms_operation, operation, failure.reason)
        trail.notes.append(XksNote(operation, milliseconds, failure.reason.value, failure.detail))

    def _note_certificate(self, store: KeyStore, reply: Reply) -> None:
        if reply.certificate is not None:
            self._metrics.certificate_seen(store.id, reply.certificate, self._now())

    def _client(self, store: KeyStore) -> ProxyClient:
        endpoint = self._endpoint(store)
        known = self._clients.get(store.id)
        if known is not None and known[0] == endpoint:
            return known[1]
        self._hang_up(store.id)
        client = ProxyClient(endpoint, tls_context(self._settings.ca), self._now)
        self._clients[store.id] = (endpoint, client)
        return client

    def _hang_up(self, store_id: str) -> None:
        if store_id in self._clients:
            self._clients.pop(store_id)[1].close()

    def _endpoint(self, store: KeyStore) -> Endpoint:
        if store.connectivity == PUBLIC:
            address = self._settings.routes.get(store.host, Address(store.host, 443))
        elif (service := self._settings.vpc_services.get(store.vpc_service or "")) is not None:
            address = service.address
        else:
            raise ProxyFailure(Failure.NO_TCP_CONNECTION, f"no VPC endpoint service {store.vpc_service}")
        credential = sigv4.Credential(
            AccessKeyId.parse(store.access_key_id),
            SecretAccessKey.parse(store.secret_access_key),
            self._settings.region,
        )
        return Endpoint(store.host, address, credential)


def _target(store: KeyStore, xks_key_id: str, operation: Operation) -> Target:
    return Target(store.path_prefix, operation, ExternalKeyId.parse(xks_key_id))


def _parse_health(body: bytes) -> GetHealthStatusResponse:
    response = GetHealthStatusResponse.parse(body)
    _require(response.xks_proxy_fleet_size > 0, "xksProxyFleetSize is not greater than zero")
    entries = len(response.ekm_fleet_details)
    _require(1 <= entries <= MAX_FLEET_DETAILS, f"ekmFleetDetails has {entries} entries")
    return response


def _parse_key_metadata(body: bytes) -> GetKeyMetadataResponse:
    response = GetKeyMetadataResponse.parse(body)
    _require(len(response.key_usage) <= MAX_KEY_USAGES, f"keyUsage has {len(response.key_usage)} values")
    return response


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ProxyFailure(Failure.MALFORMED_RESPONSE, otherwise)
