"""Secondary authorization (spec, "Authorization"): asked after the request is parsed, before its key is looked at."""

from holdfast.policy.facts import Facts
from holdfast.policy.faults import AccessDenied
from holdfast.protocols.xks.request import Request
from holdfast.protocols.xks.services import Services
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import Operation


def authorize(request: Request, metadata: RequestMetadata, *, operation: Operation, services: Services) -> None:
    """Raises AccessDenied unless the policies, where there are any, permit it. The event names those that decided."""
    if services.policies is None:
        return
    decision = services.policies.decide(
        Facts(
            operation.value,
            request.keystore.name,
            str(request.external_key_id),
            metadata.aws_principal_arn or "",
            metadata.kms_operation,
            metadata.kms_key_arn,
            metadata.kms_via_service,
            metadata.aws_source_vpc,
            metadata.aws_source_vpce,
        )
    )
    request.event.policies = decision.policies
    if decision.denial is not None:
        raise AccessDenied(decision.denial)
