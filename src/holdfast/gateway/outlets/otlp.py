"""OpenTelemetry's exporter of log records, with what it keeps to itself made known: why it failed."""

import logging
from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from holdfast._version import __version__
from holdfast.config.outlets import Outlet
from holdfast.gateway.outlets.message import Message, Render, Severity
from holdfast.gateway.outlets.transports import Refused

_SEVERITIES = {
    Severity.ALERT: SeverityNumber.FATAL,
    Severity.ERROR: SeverityNumber.ERROR,
    Severity.WARNING: SeverityNumber.WARN,
    Severity.NOTICE: SeverityNumber.INFO2,
    Severity.INFORMATIONAL: SeverityNumber.INFO,
}
_PASSING = frozenset({401, 403, 404, 408, 429, 502, 503, 504})
"""OTLP 1.x says that the last four may be tried again. So are the first: a token or a path can be put right."""
_SCOPE = InstrumentationScope("holdfast", __version__)


class Exporter:
    """Endpoint and TLS are the configuration's; OTEL_EXPORTER_OTLP_HEADERS gives a token, as with every SDK."""

    def __init__(self, settings: Outlet, render: Render, *, timeout: float) -> None:
        self._render = render
        self._resource: Resource | None = None
        self._statuses: list[int] = []
        self._said = _LastWords()
        # The SDK tells of its failures in the log of the process, and not its caller.
        logger = logging.getLogger("opentelemetry")
        logger.propagate = False
        logger.handlers = [self._said]
        session = requests.Session()
        session.hooks["response"].append(self._note_status)
        to = settings.to
        host = f"[{to.host}]" if ":" in to.host else to.host
        self._exporter = OTLPLogExporter(
            endpoint=f"{to.scheme.removeprefix('otlp+')}://{host}:{to.port}{to.path}",
            certificate_file=None if settings.ca is None else str(settings.ca),
            client_key_file=None if settings.private_key is None else str(settings.private_key),
            client_certificate_file=None if settings.certificate is None else str(settings.certificate),
            timeout=timeout,
            compression=Compression.Gzip,
            session=session,
        )
        self.shutdown = self._exporter.shutdown

    def export(self, messages: Sequence[Message], first: int) -> int:
        """Send them in one request. Raises OSError, Refused."""
        self._statuses.clear()
        records = [self._record(message, first + index) for index, message in enumerate(messages)]
        if self._exporter.export(records) is LogRecordExportResult.SUCCESS:
            return len(messages)
        if self._statuses and self._statuses[-1] not in _PASSING:
            raise Refused(f"the receiver answers {self._statuses[-1]}")
        raise OSError(self._said.text or "the receiver is not reached")

    def _record(self, message: Message, sequence: int) -> ReadableLogRecord:
        at = round(message.seconds * 1_000) * 1_000_000
        record = LogRecord(
            timestamp=at,
            observed_timestamp=at,
            severity_text=message.severity.name,
            severity_number=_SEVERITIES[message.severity],
            body=message.fitting(self._render),
            attributes={"log.record.uid": _uid(message, sequence), **_attributes(message)},
            event_name=f"holdfast.{message.kind}",
        )
        if self._resource is None:
            known = {"service.name": "holdfast", "service.version": __version__, "service.instance.id": message.node}
            self._resource = Resource(known)
        return ReadableLogRecord(record, self._resource, _SCOPE)

    def _note_status(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self._statuses.append(response.status_code)


class _LastWords(logging.Handler):
    """What the SDK said last."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _uid(message: Message, sequence: int) -> str:
    return str(message.fields.get("id") or message.fields.get("kmsRequestId") or f"{message.node}/{sequence}")


def _attributes(message: Message) -> dict[str, Any]:
    """The fields that are single values, under our names."""
    return {
        f"holdfast.{name}": value for name, value in message.fields.items() if isinstance(value, str | int | float)
    }
