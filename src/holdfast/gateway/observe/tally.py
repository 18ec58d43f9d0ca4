"""What a worker counts of its requests: cheap to add to, sent whole to the supervisor, which serves /metrics."""

from bisect import bisect_left

import msgspec

from holdfast.protocols.xks.event import Event

EDGES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0)
"""Seconds. 0.25 is where KMS gives up, 0.2 the default deadline."""
STAGES = ("authentication", "queue", "hsm", "total")


class Row(msgspec.Struct):
    """The requests of one keystore, operation and error name; `""` where there is none.

    `buckets` and `seconds` have one entry for each of STAGES; a bucket counts what is at or below its edge and
    above the one before; the last is for what is above all edges.
    """

    keystore: str
    operation: str
    error_name: str
    buckets: tuple[list[int], list[int], list[int], list[int]]
    seconds: list[float]
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Row])


class Tally:
    """Sums since the worker's start. Belongs to the event loop."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str | None, str | None, str | None], Row] = {}

    def add(self, event: Event) -> None:
        """Count one request."""
        outcome = event.outcome
        key = (event.keystore, event.operation, outcome)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(
                event.keystore or "", event.operation or "", outcome or "", _empty_buckets(), [0.0] * len(STAGES)
            )
        row.requests += 1
        row.bytes_in += event.bytes_in
        row.bytes_out += event.bytes_out
        timing = event.timing
        stages = (event.authentication, timing.queue, timing.hsm, event.total)
        for index, seconds in enumerate(stages):
            row.buckets[index][bisect_left(EDGES, seconds)] += 1
            row.seconds[index] += seconds

    def rows(self) -> list[Row]:
        """A copy of every row: another thread sends it while requests go on."""
        return _DECODER.decode(_ENCODER.encode(list(self._rows.values())))


def merge(total: dict[tuple[str, str, str], Row], rows: list[Row]) -> None:
    """Add `rows` to `total`."""
    for row in rows:
        key = (row.keystore, row.operation, row.error_name)
        into = total.get(key)
        if into is None:
            into = total[key] = Row(*key, _empty_buckets(), [0.0] * len(STAGES))
        into.requests += row.requests
        into.bytes_in += row.bytes_in
        into.bytes_out += row.bytes_out
        for mine, theirs in zip(into.buckets, row.buckets, strict=True):
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]
        into.seconds[:] = [a + b for a, b in zip(into.seconds, row.seconds, strict=True)]


def _empty_buckets() -> tuple[list[int], list[int], list[int], list[int]]:
    size = len(EDGES) + 1
    return [0] * size, [0] * size, [0] * size, [0] * size
