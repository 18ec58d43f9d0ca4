"""VPC endpoint services: what KMS checks of one before it connects through it."""

from holdfast.kms.settings import Settings
from holdfast.xks.kms_errors import ConnectionErrorCode


def problem_of(service: str, host: str, settings: Settings) -> ConnectionErrorCode | None:
    """What keeps KMS from using a VPC endpoint service for an endpoint's host name; None if nothing does."""
    declared = settings.vpc_services.get(service)
    if declared is None or f".{settings.region}." not in service:
        return ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND
    if declared.private_dns_name != host:
        return ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION
    return None
