"""What a decision can use of a request, with the names of the schema."""

from typing import Any, NamedTuple

_AWS_INTERNAL = "AWS Internal"
_SERVICES = (
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
)
"""The domains of AWS's partitions: `xks/partition.py`, which this layer does not import."""
_ACCOUNT, _REGION, _PARTS = 4, 3, 6


class Facts(NamedTuple):
    """Everything that a decision depends on, and nothing else: requests with equal facts get one decision.

    None is what KMS did not send.
    """

    operation: str
    keystore: str
    external_key_id: str
    aws_principal_arn: str
    kms_operation: str
    kms_key_arn: str | None = None
    kms_via_service: str | None = None
    aws_source_vpc: str | None = None
    aws_source_vpce: str | None = None

    def request(self) -> dict[str, Any]:
        """The request as Cedar takes it."""
        return {
            "principal": self._principal,
            "action": {"type": "Action", "id": self.operation},
            "resource": self._resource,
            "context": self._context(),
        }

    def entities(self) -> list[dict[str, Any]]:
        """The request's entities as Cedar takes them."""
        arn = self.aws_principal_arn
        return [
            {
                "uid": self._principal,
                "attrs": {"arn": arn, "account": _of_arn(arn, _ACCOUNT), "isAwsService": _is_aws_service(arn)},
                "parents": [],
            },
            {
                "uid": self._resource,
                "attrs": {"keystore": self.keystore, "externalKeyId": self.external_key_id},
                "parents": [{"type": "Keystore", "id": self.keystore}],
            },
        ]

    @property
    def _principal(self) -> dict[str, str]:
        return {"type": "AwsPrincipal", "id": self.aws_principal_arn}

    @property
    def _resource(self) -> dict[str, str]:
        return {"type": "ExternalKey", "id": f"{self.keystore}/{self.external_key_id}"}

    def _context(self) -> dict[str, str]:
        key = self.kms_key_arn
        found = {
            "kmsOperation": self.kms_operation,
            "kmsKeyArn": key,
            "kmsKeyAccount": None if key is None else _of_arn(key, _ACCOUNT),
            "region": None if key is None else _of_arn(key, _REGION),
            "kmsViaService": self.kms_via_service,
            "awsSourceVpc": self.aws_source_vpc,
            "awsSourceVpce": self.aws_source_vpce,
        }
        return {name: value for name, value in found.items() if value is not None}


def _of_arn(text: str, part: int) -> str:
    """A part of `arn:partition:service:region:account:resource`; empty if the text is not an ARN."""
    parts = text.split(":", _PARTS - 1)
    return parts[part] if len(parts) == _PARTS and parts[0] == "arn" else ""


def _is_aws_service(principal: str) -> bool:
    """Spec, "GetKeyMetadata", `awsPrincipalArn`: a service principal or "AWS Internal" in place of an ARN."""
    return principal == _AWS_INTERNAL or (not principal.startswith("arn:") and principal.endswith(_SERVICES))
