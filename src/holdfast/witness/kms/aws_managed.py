"""AWS managed keys: `alias/aws/s3` and the like, each made when DescribeKey first asks for its alias."""

import json
import uuid
from typing import Final

from holdfast.witness.kms.call import Call, Service
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.records import Alias, Key

PREFIX = "alias/aws/"
SERVICES: Final = frozenset(
    (
        "acm",
        "backup",
        "cloud9",
        "codeartifact",
        "codecommit",
        "codewhisperer",
        "connect",
        "dms",
        "dynamodb",
        "ebs",
        "elasticfilesystem",
        "es",
        "fsx",
        "glue",
        "kafka",
        "kinesis",
        "kinesisvideo",
        "lambda",
        "lex",
        "lightsail",
        "logs",
        "mq",
        "rds",
        "redshift",
        "redshift-serverless",
        "s3",
        "secretsmanager",
        "ses",
        "sns",
        "sqs",
        "ssm",
        "states",
        "workspaces",
        "xray",
    )
)
"""The services whose aliases are predefined, as far as this KMS knows them."""

_VIEWING = frozenset(
    (
        "DescribeKey",
        "GetKeyLastUsage",
        "GetKeyPolicy",
        "GetKeyRotationStatus",
        "ListAliases",
        "ListGrants",
        "ListKeyPolicies",
        "ListKeyRotations",
        "ListResourceTags",
    )
)


def create_if_predefined(named: str, service: Service) -> None:
    """Makes the AWS managed key of a predefined alias that has none."""
    name = named.rpartition(":")[2]
    aws_service = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or aws_service not in SERVICES:
        return
    if service.state.find(Alias, name=name) is not None:
        return
    now = service.timestamp()
    key = Key(
        id=str(uuid.uuid4()),
        created=now,
        description=f"Default key of {aws_service} when no other key is given",
        policy=_policy(aws_service, service),
        material=service.random(32),
        aws_service=aws_service,
    )
    service.state.put(key)
    service.state.put(Alias(name, key.id, now, now))


def require_access(key: Key, call: Call, service: Service) -> None:
    """Raises KmsException unless the key is the customer's, is only looked at, or is used through its service."""
    via = call.caller.via_service or ""
    if key.aws_service is None or call.operation in _VIEWING or via.startswith(f"{_host(key.aws_service)}."):
        return
    raise KmsException(
        "AccessDeniedException",
        f"User: {call.caller.principal_arn} is not authorized to perform: kms:{call.operation} on resource: "
        f"{service.arn(f'key/{key.id}')} because no resource-based policy allows the kms:{call.operation} action",
    )


def _host(aws_service: str) -> str:
    """The first label of the host name in `kms:ViaService`."""
    return "ec2" if aws_service == "ebs" else aws_service


def _policy(aws_service: str, service: Service) -> str:
    settings = service.settings
    conditions = {
        "kms:CallerAccount": settings.account,
        "kms:ViaService": f"{_host(aws_service)}.{settings.region}.{settings.partition.dns_suffix}",
    }
    through_service = {
        "Sid": f"Allow use through {aws_service}",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:CreateGrant"],
        "Resource": "*",
        "Condition": {"StringEquals": conditions},
    }
    looking = {
        "Sid": "Allow the account to look at the key",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{settings.partition.name}:iam::{settings.account}:root"},
        "Action": ["kms:Describe*", "kms:Get*", "kms:List*"],
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": f"auto-{aws_service}", "Statement": [through_service, looking]})
