"""What AWS KMS demands of a key policy before it stores one (service model, CreateKey and PutKeyPolicy)."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from holdfast.witness.kms.call import Call, Service
from holdfast.witness.kms.errors import KmsException
from holdfast.xks.encoding import decode_json_object
from holdfast.xks.errors import XksError

_MEMBERS = frozenset(("Version", "Id", "Statement"))
_VERSIONS = frozenset(("2012-10-17", "2008-10-17"))
_STATEMENT_MEMBERS = frozenset(
    ("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition")
)
_LOCKED_OUT = "The new key policy will not allow you to update the key policy in the future."


def require(policy: str, call: Call, service: Service) -> None:
    """Raises KmsException(MalformedPolicyDocumentException)."""
    try:
        document = decode_json_object(policy.encode())
    except XksError as error:
        raise _malformed(f"The policy is not a JSON object: {error.message}.") from None
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not document.keys() <= _MEMBERS:
        raise _malformed("A policy has Version, Id and Statement, and nothing else.")
    if document.get("Version", "2008-10-17") not in _VERSIONS:
        raise _malformed("The Version of a policy is 2012-10-17 or 2008-10-17.")
    for statement in statements:
        _require_statement(statement)
    if not call.input.get("BypassPolicyLockoutSafetyCheck") and not any(
        _lets_change_policy(statement, call, service) for statement in statements
    ):
        raise _malformed(_LOCKED_OUT)


def _require_statement(statement: Any) -> None:
    if not isinstance(statement, dict) or not statement.keys() <= _STATEMENT_MEMBERS:
        raise _malformed("A statement of the policy is not an object with the members of a statement.")
    if statement.get("Effect") not in {"Allow", "Deny"}:
        raise _malformed("The Effect of a statement is Allow or Deny.")
    for first, second in (("Principal", "NotPrincipal"), ("Action", "NotAction")):
        if (first in statement) == (second in statement):
            raise _malformed(f"A statement of a key policy must have {first} or {second}.")
    principal = statement.get("Principal", statement.get("NotPrincipal"))
    if principal != "*" and not (isinstance(principal, dict) and any(principal.values())):
        raise _malformed("A statement of a key policy must contain one or more principals.")
    if not _texts(statement.get("Action", statement.get("NotAction"))):
        raise _malformed("A statement of a key policy must contain one or more actions.")


def _lets_change_policy(statement: Mapping[str, Any], call: Call, service: Service) -> bool:
    """Whether the statement allows the caller, or the whole account, a later PutKeyPolicy. Ignores Condition."""
    if statement["Effect"] != "Allow" or "Action" not in statement or "Principal" not in statement:
        return False
    if not any(fnmatchcase("kms:putkeypolicy", action.lower()) for action in _texts(statement["Action"])):
        return False
    principal = statement["Principal"]
    named = ["*"] if principal == "*" else _texts(principal.get("AWS"))
    account, partition = service.settings.account, service.settings.partition.name
    caller = call.caller.principal_arn
    role = caller.replace(":sts:", ":iam:").replace(":assumed-role/", ":role/").rpartition("/")[0]
    return not {"*", account, f"arn:{partition}:iam::{account}:root", caller, role}.isdisjoint(named)


def _texts(value: Any) -> list[str]:
    """One text, or a list of texts; empty for anything else."""
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(each, str) for each in values) else []


def _malformed(message: str) -> KmsException:
    return KmsException("MalformedPolicyDocumentException", message)
