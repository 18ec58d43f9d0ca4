"""The process that writes the audit log, as one of the supervisor's companions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway.sealer.start import SealerStart, run
from holdfast.gateway.supervisor.companion import Companion, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.gateway.observe.messages import SealerReport

_KIND = Kind(
    name="sealer",
    title="the sealer of the audit log",
    needs=lambda configuration: None if configuration.audit is None else (configuration.audit, configuration.hsms),
    make=SealerStart,
    run=run,
    end_timeout=10.0,  # for the last segments to be logged and signed
)


def sealer(*, say: Callable[[str, str], None]) -> Companion[SealerReport]:
    """Its place. What stops it from logging or signing is told to the operator once."""
    return Companion(_KIND, say=say, on_report=_Trouble(say).hear)


class _Trouble:
    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._last: str | None = None

    def hear(self, report: SealerReport) -> None:
        if report.trouble is not None and report.trouble != self._last:
            self._say("error", f"ALARM: the audit log: {report.trouble}")
        if report.trouble is None and self._last is not None:
            self._say("notice", "the audit log is written and signed again")
        self._last = report.trouble
