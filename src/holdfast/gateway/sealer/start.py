"""What the sealer is started with. Light: the supervisor imports no HSM code."""

from dataclasses import dataclass
from multiprocessing.connection import Connection

from holdfast.config.model import Configuration


@dataclass(frozen=True, slots=True)
class SealerStart:
    """`control` brings one message, or its end: then the sealer logs what there is, signs it, and ends."""

    configuration: Configuration
    control: Connection


def run(start: SealerStart) -> None:
    """The process. Everything heavy is imported here, in the spawned process, and not by the supervisor."""
    from holdfast.gateway.sealer import sealer  # noqa: PLC0415 (see above)

    sealer.run(start)
