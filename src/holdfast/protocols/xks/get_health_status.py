"""GetHealthStatus (spec, "GetHealthStatus")."""

from holdfast._version import __version__
from holdfast.hsm.port import HsmHealth
from holdfast.protocols.xks.request import Request
from holdfast.protocols.xks.services import Services
from holdfast.xks.messages import EkmFleetDetail, GetHealthStatusRequest, GetHealthStatusResponse
from holdfast.xks.types import HealthStatus

MAX_AGE = 60.0
"""Seconds. Spec, "GetHealthStatus": a cached result is not older than one minute."""
MAX_FLEET_DETAILS = 10
"""Spec, "GetHealthStatus": entries of `ekmFleetDetails`."""


async def answer(request: Request, services: Services) -> bytes:
    """The body of the GetHealthStatus response. Raises XksError.

    An HSM that is down is an entry with UNAVAILABLE in a 200: only so can KMS tell it from a broken proxy.
    """
    message = GetHealthStatusRequest.parse(request.body)
    request.note(message.request_metadata)
    request.require_unblocked()
    healths = [hsm.health() for hsm in services.hsms.values()]
    now = services.clock()
    return GetHealthStatusResponse(
        xks_proxy_fleet_size=services.snapshot().fleet_size,
        xks_proxy_vendor="Holdfast",
        xks_proxy_model=f"Holdfast {__version__}",
        ekm_vendor=healths[0].vendor,
        ekm_fleet_details=[
            EkmFleetDetail(health.id, health.model, current_status(health, now))
            for health in healths[:MAX_FLEET_DETAILS]
        ],
    ).to_json()


def current_status(health: HsmHealth, now: float) -> HealthStatus:
    """The probe's finding; UNAVAILABLE if it is older than a minute: the status is then unknown."""
    if health.checked_at is None or now - health.checked_at > MAX_AGE:
        return HealthStatus.UNAVAILABLE
    return health.status
