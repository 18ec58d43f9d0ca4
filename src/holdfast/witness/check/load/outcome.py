"""What a load run showed, and what to conclude from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.witness.check.latency import Summary

KMS_DEFAULT_RATE = 1800
"""Requests per second and external key store. Spec, "GetHealthStatus", KMS considerations."""
_HEADROOM = 0.8
_KEPT_UP = 0.98
_FIRM = 10_000  # requests: ten of them make out a p99.9
_MAX_LAG = 0.020


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for some seconds. `latency` counts from the intended sending time.

    `in_time` of the requests were answered 200 within 250 ms; `errors` counts by name what was no 200. `lag` is the
    99th percentile of how late this machine was ready to send, in seconds.
    """

    rate: int
    seconds: float
    sent: int
    succeeded: int
    in_time: int
    latency: Summary | None
    histogram: tuple[int, ...]
    errors: dict[str, int]
    lag: float
    bytes_out: int
    bytes_in: int

    @property
    def fits(self) -> bool:
        """At least 99.9 % of the requests were answered 200 within 250 ms."""
        return bool(self.sent) and self.sent - self.in_time <= self.sent // 1000

    @property
    def generator_kept_up(self) -> bool:
        """Whether this machine sent the requests when it meant to; if not, a bad figure may be its own."""
        return self.sent >= _KEPT_UP * self.rate * self.seconds and self.lag <= _MAX_LAG


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """All steps of a run, in the order made. `asked` is the rate that the operator named."""

    asked: int
    steps: tuple[Step, ...]
    processes: int
    connections: int

    @property
    def carried(self) -> int:
        """The highest rate that fits, below any that does not; 0 if none does."""
        failing = min((step.rate for step in self.steps if not step.fits), default=None)
        return max((s.rate for s in self.steps if s.fits and (failing is None or s.rate < failing)), default=0)

    @property
    def fits(self) -> bool:
        """Whether the asked rate was carried."""
        return self.carried >= self.asked

    @property
    def conclusive(self) -> bool:
        """Whether every rate that did not fit was at least sent on time: else the fault may be this machine's."""
        return all(step.fits or step.generator_kept_up for step in self.steps)

    @property
    def quota(self) -> int:
        """The request quota to ask AWS for: what was carried less a fifth, rounded down to two digits."""
        target = int(self.carried * _HEADROOM)
        unit = int("1" + "0" * max(0, len(str(target)) - 2))
        return target // unit * unit

    def bandwidth(self, rate: int) -> tuple[float, float]:
        """Mbit/s towards the endpoint and back, at `rate` requests of this run's mix: HTTP octets alone."""
        best = max(self.steps, key=lambda step: step.succeeded)
        per_request = rate * 8 / 1e6 / max(1, best.sent)
        return best.bytes_out * per_request, best.bytes_in * per_request

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        out, back = self.bandwidth(KMS_DEFAULT_RATE)
        carried = f"{self.carried:,} requests/s" if self.carried else "none of the rates tried"
        needs = f"{out:.1f} Mbit/s towards the endpoint and {back:.1f} back, plus about a tenth for TLS and TCP"
        said = [
            f"This endpoint carried {carried} inside 250 ms at p99.9, as measured from here.",
            self._against_default(),
            f"{KMS_DEFAULT_RATE:,} requests/s of this mix need {needs}.",
        ]
        if (decisive := self._decisive).sent < _FIRM:
            said.append(
                f"At {decisive.rate:,}/s only {decisive.sent:,} requests were sent: a p99.9 is firm from {_FIRM:,} "
                "on, so hold the rate for longer (--seconds)."
            )
        if not self.conclusive:
            said.append(
                "This machine could not send on time, so the endpoint may carry more: repeat from a faster "
                "machine, or one that does not also run the proxy."
            )
        return tuple(said)

    @property
    def _decisive(self) -> Step:
        return next((step for step in self.steps if step.rate == self.carried), self.steps[-1])

    def _against_default(self) -> str:
        if self.carried >= KMS_DEFAULT_RATE:
            return f"The KMS default of {KMS_DEFAULT_RATE:,} requests/s fits."
        if self.fits:
            default = KMS_DEFAULT_RATE
            return f"Whether the KMS default of {default:,}/s fits was not tried: use --load {default}."
        if not self.conclusive:
            return f"Whether the KMS default of {KMS_DEFAULT_RATE:,}/s fits stays open: this machine itself was late."
        if not self.quota:
            return "Find out why before asking AWS for a quota."
        return (
            f"The KMS default of {KMS_DEFAULT_RATE:,}/s does not fit: ask AWS to lower this key store's request "
            f"quota to {self.quota:,}/s, so that KMS refuses the rest at once and the keys stay usable."
        )
