"""The report as a JSON document. Times in seconds, rates per second, bandwidth in Mbit/s."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from holdfast.witness.check.finding import Verdict
from holdfast.witness.check.latency import Summary
from holdfast.witness.check.load.outcome import KMS_DEFAULT_RATE

if TYPE_CHECKING:
    from holdfast.witness.check.latency import Measurement
    from holdfast.witness.check.load.outcome import LoadOutcome
    from holdfast.witness.check.run import Report


def document(report: Report) -> dict[str, Any]:
    """Everything that was found, ready for a JSON encoder."""
    return {
        "endpoint": report.url,
        "xksProxyUriPath": report.uri_path,
        "address": report.address,
        "from": report.place,
        "holdfast": report.version,
        "started": report.started.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "conclusion": report.conclusion,
        "fit": report.fit,
        "counts": {verdict: report.count(verdict) for verdict in Verdict},
        "checks": [
            {
                "id": result.check.id,
                "title": result.title,
                "level": result.check.level,
                "verdict": result.verdict,
                "evidence": result.evidence,
                "method": result.check.what_it_does,
                "remedy": result.check.remedy if result.violated else None,
                "source": asdict(result.check.source),
                "seconds": round(result.seconds, 4),
            }
            for result in report.results
        ],
        "latency": None if report.measurement is None else _latency(report.measurement),
        "load": None if report.load is None else _load(report.load),
    }


def _latency(measurement: Measurement) -> dict[str, Any]:
    return {
        "operation": measurement.operation,
        "dns": measurement.dns,
        "newConnection": {
            name: asdict(Summary.of(getattr(measurement, name))) for name in ("tcp", "tls", "first_byte", "whole")
        },
        "keptConnection": asdict(Summary.of(measurement.reused)),
    }


def _load(load: LoadOutcome) -> dict[str, Any]:
    out, back = load.bandwidth(KMS_DEFAULT_RATE)
    return {
        "asked": load.asked,
        "carried": load.carried,
        "fits": load.fits,
        "kmsDefaultRate": KMS_DEFAULT_RATE,
        "kmsDefaultFits": load.carried >= KMS_DEFAULT_RATE,
        "conclusive": load.conclusive,
        "quotaToAskFor": load.quota if load.conclusive and load.carried < KMS_DEFAULT_RATE else None,
        "bandwidthAtDefaultRate": {"towardsEndpoint": round(out, 3), "back": round(back, 3)},
        "processes": load.processes,
        "connections": load.connections,
        "verdict": list(load.sentences),
        "steps": [
            asdict(step) | {"fits": step.fits, "generatorKeptUp": step.generator_kept_up} for step in load.steps
        ],
    }
