"""VPC endpoint services: what KMS checks of one before it connects through it."""

from holdfast.witness.kms.records import KeyStore
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms_errors import ConnectionErrorCode


def problem_of(store: KeyStore, settings: Settings) -> ConnectionErrorCode | None:
    """What keeps KMS from using a store's VPC endpoint service for its endpoint's host; None if nothing does."""
    service = store.vpc_service or ""
    declared = settings.vpc_services.get(service)
    if declared is None or f".{settings.region}." not in service:
        return ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND
    if (declared.owner or settings.account) != store.vpc_service_owner:
        return ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND
    if declared.private_dns_name != store.host:
        return ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION
    return None
