"""CloudWatch's metrics of external key stores, under CloudWatch's names, for Prometheus to scrape."""

from collections import Counter as Tally
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from holdfast.witness.kms.https import Certificate
from holdfast.witness.kms_errors import RETRYABLE, Failure
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import GetHealthStatusResponse
from holdfast.xks.types import HealthStatus, Operation

_CALL = ("CustomKeyStoreId", "KmsOperation", "XksOperation", "KeySpec")
_UNREACHABLE = frozenset(
    (Failure.NO_TCP_CONNECTION, Failure.NO_TLS_CONNECTION, Failure.SOCKET_TIMEOUT, Failure.CONNECTION_LOST)
)
_MILLISECONDS = (5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 500)


class CloudWatch:
    """The `AWS/KMS` metrics that concern external key stores."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._latency = Histogram(
            "XksProxyLatency",
            "Milliseconds until the proxy answered, or was given up",
            _CALL,
            buckets=_MILLISECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "XksProxyErrors",
            "Failed calls of the proxy",
            (*_CALL, "ErrorType", "ExceptionName"),
            registry=registry,
        )
        self._certificate = Gauge(
            "XksProxyCertificateDaysToExpire",
            "Days until the proxy's certificate expires",
            ("CustomKeyStoreId", "CertificateName"),
            registry=registry,
        )
        self._credential = Gauge(
            "XksProxyCredentialAge",
            "Days since the key store was given its proxy authentication credential",
            ("CustomKeyStoreId",),
            registry=registry,
        )
        self._managers = Gauge(
            "XksExternalKeyManagerStates",
            "External key managers in each state, as the proxy reported last",
            ("CustomKeyStoreId", "XksExternalKeyManagerState"),
            registry=registry,
        )
        self._throttled = Counter(
            "ExternalKeyStoreThrottle",
            "Cryptographic operations refused for the key store's request quota",
            ("CustomKeyStoreId", "KmsOperation", "KeySpec"),
            registry=registry,
        )

    def call_ended(self, store_id: str, kms_operation: str, operation: Operation, seconds: float) -> None:
        """Counts a call of the proxy, failed or not."""
        self._latency.labels(*_labels(store_id, kms_operation, operation)).observe(seconds * 1000)

    def call_failed(
        self, store_id: str, kms_operation: str, operation: Operation, reason: ErrorName | Failure
    ) -> None:
        """Counts a failed call of the proxy."""
        kind = "Retryable" if reason in RETRYABLE else "Non-retryable"
        self._errors.labels(*_labels(store_id, kms_operation, operation), kind, exception_name(reason)).inc()

    def certificate_seen(self, store_id: str, certificate: Certificate, now: datetime) -> None:
        """Notes a certificate's days; CloudWatch has none for a wildcard."""
        self._certificate.remove_by_labels({"CustomKeyStoreId": store_id})
        if "*" not in certificate.common_name:
            days = (certificate.not_after - now).total_seconds() / 86400
            self._certificate.labels(store_id, certificate.common_name).set(days)

    def credential_aged(self, store_id: str, seconds: float) -> None:
        """Notes how long KMS has had a key store's credential."""
        self._credential.labels(store_id).set(seconds / 86400)

    def health_reported(self, store_id: str, response: GetHealthStatusResponse) -> None:
        """Notes the states of the external key managers."""
        states = Tally(detail.health_status for detail in response.ekm_fleet_details)
        for state in HealthStatus:
            self._managers.labels(store_id, state.value).set(states[state])

    def proxy_forgotten(self, store_id: str) -> None:
        """Ends the time series of a proxy that KMS does not call any more."""
        for gauge in (self._certificate, self._credential, self._managers):
            gauge.remove_by_labels({"CustomKeyStoreId": store_id})

    def throttled(self, store_id: str, kms_operation: str) -> None:
        """Counts an operation refused for the quota."""
        self._throttled.labels(store_id, kms_operation, "AES_256").inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


def exception_name(reason: ErrorName | Failure) -> str:
    """`ExceptionName`: the proxy's `errorName`, or KMS's own name for what it could not use."""
    if isinstance(reason, ErrorName):
        return reason.value
    return "XksProxyUnreachableException" if reason in _UNREACHABLE else "XksProxyInvalidResponseException"


def _labels(store_id: str, kms_operation: str, operation: Operation) -> tuple[str, str, str, str]:
    key_spec = "" if operation is Operation.GET_HEALTH_STATUS else "AES_256"
    return store_id, kms_operation, operation.value, key_spec
