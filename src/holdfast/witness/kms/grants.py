"""CreateGrant, ListGrants, ListRetirableGrants, RetireGrant, RevokeGrant.

Grants are kept as AWS keeps them. They permit nothing here, since no policy is evaluated: every caller may do all.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.witness.kms.call import Call, Output, Service, page, stop_dry_run
from holdfast.witness.kms.errors import KmsException, validation_error
from holdfast.witness.kms.key_lookup import key_of
from holdfast.witness.kms.records import Grant, Key, date
from holdfast.witness.kms.service_model import errors_of
from holdfast.xks.encoding import decode_base64, encode_base64
from holdfast.xks.errors import XksError

_GRANT_ID_LENGTH = 32
_TOKEN_LENGTH = 64
_OPERATIONS = frozenset(
    (
        "CreateGrant",
        "Decrypt",
        "DescribeKey",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
        "RetireGrant",
    )
)
"""What a grant on a symmetric encryption key may permit."""
_PRINCIPAL = re.compile(r"arn:[a-z0-9-]+:(?:iam|sts)::[0-9]{12}:.+")
_DEFAULT_PAGE = 50


async def create(call: Call, service: Service) -> Output:
    """CreateGrant. One that repeats a grant with a name, in every parameter, gives that grant again."""
    given = call.input
    _require_principals(given)
    wrong = sorted(set(given["Operations"]) - _OPERATIONS)
    if wrong or not given["Operations"]:
        raise validation_error(f"Operations of a grant on a SYMMETRIC_DEFAULT key cannot be [{', '.join(wrong)}].")
    key = key_of(call, service)
    require_tokens(call, service)
    stop_dry_run(call)
    grant = Grant(
        id=service.random(_GRANT_ID_LENGTH).hex(),
        key_id=key.id,
        created=service.timestamp(),
        name=given.get("Name"),
        grantee=given.get("GranteePrincipal"),
        grantee_service=given.get("GranteeServicePrincipal"),
        retiring=given.get("RetiringPrincipal"),
        retiring_service=given.get("RetiringServicePrincipal"),
        operations=" ".join(dict.fromkeys(given["Operations"])),
        constraints=json.dumps(given.get("Constraints", {}), sort_keys=True),
    )
    grant = _repeated(grant, service) or grant
    service.state.put(grant)
    token = bytes.fromhex(grant.id) + service.random(_TOKEN_LENGTH - _GRANT_ID_LENGTH)
    return {"GrantToken": encode_base64(token), "GrantId": grant.id}


async def list_grants(call: Call, service: Service) -> Output:
    """ListGrants: those of a key, also of one grant id or one grantee."""
    wanted = {"GrantId": "id", "GranteePrincipal": "grantee", "GranteeServicePrincipal": "grantee_service"}
    chosen = {column: call.input[name] for name, column in wanted.items() if name in call.input}
    return _page(call, service.state.select(Grant, key_id=key_of(call, service).id, **chosen), service)


async def list_retirable(call: Call, service: Service) -> Output:
    """ListRetirableGrants: those that a principal may retire, of any key."""
    wanted = {"RetiringPrincipal": "retiring", "RetiringServicePrincipal": "retiring_service"}
    chosen = {column: call.input[name] for name, column in wanted.items() if name in call.input}
    if len(chosen) != 1:
        raise validation_error("Specify RetiringPrincipal or RetiringServicePrincipal.")
    return _page(call, service.state.select(Grant, **chosen), service)


async def retire(call: Call, service: Service) -> Output:
    """RetireGrant: by its token, or by key and grant id."""
    given = call.input
    by_ids = "KeyId" in given and "GrantId" in given
    if ("GrantToken" in given) == by_ids or ("KeyId" in given) != ("GrantId" in given):
        raise validation_error("Specify either GrantToken, or both KeyId and GrantId.")
    grant = _of_ids(call, service) if by_ids else _of_token(given["GrantToken"], service)
    stop_dry_run(call)
    service.state.delete(grant)
    return {}


async def revoke(call: Call, service: Service) -> Output:
    """RevokeGrant: by key and grant id."""
    grant = _of_ids(call, service)
    stop_dry_run(call)
    service.state.delete(grant)
    return {}


def require_tokens(call: Call, service: Service) -> None:
    """Raises KmsException(InvalidGrantTokenException) for a grant token that is not one of a grant here."""
    if "InvalidGrantTokenException" in errors_of(call.operation):
        for token in call.input.get("GrantTokens", []):
            _of_token(token, service)


def _require_principals(given: Mapping[str, Any]) -> None:
    if ("GranteePrincipal" in given) == ("GranteeServicePrincipal" in given):
        raise validation_error("Specify either GranteePrincipal or GranteeServicePrincipal, but not both.")
    retiring = [name for name in ("RetiringPrincipal", "RetiringServicePrincipal") if name in given]
    if len(retiring) > 1:
        raise validation_error("Specify either RetiringPrincipal or RetiringServicePrincipal, but not both.")
    if "GranteeServicePrincipal" in given and not (retiring and given.get("Constraints", {}).get("SourceArn")):
        raise validation_error("GranteeServicePrincipal needs a SourceArn constraint and a retiring principal.")
    for name in ("GranteePrincipal", "RetiringPrincipal"):
        if name in given and not _PRINCIPAL.fullmatch(given[name]):
            raise KmsException("InvalidArnException", f"ARN does not refer to a valid principal: {given[name]}")


def _repeated(grant: Grant, service: Service) -> Grant | None:
    if grant.name is None:
        return None
    same = ("grantee", "grantee_service", "retiring", "retiring_service", "operations", "constraints")
    return next(
        (
            other
            for other in service.state.select(Grant, key_id=grant.key_id, name=grant.name)
            if all(getattr(other, column) == getattr(grant, column) for column in same)
        ),
        None,
    )


def _of_ids(call: Call, service: Service) -> Grant:
    key: Key = key_of(call, service)
    grant = service.state.find(Grant, key_id=key.id, id=call.input["GrantId"])
    if grant is None:
        raise KmsException("NotFoundException", f"Grant ID {call.input['GrantId']} not found")
    return grant


def _of_token(token: str, service: Service) -> Grant:
    try:
        raw = decode_base64(token, "GrantToken")
    except XksError:
        raw = b""
    grant = service.state.find(Grant, id=raw[:_GRANT_ID_LENGTH].hex()) if len(raw) == _TOKEN_LENGTH else None
    if grant is None:
        raise KmsException("InvalidGrantTokenException", "The grant token is not that of a grant here.")
    return grant


def _page(call: Call, grants: Sequence[Grant], service: Service) -> Output:
    by_id = {grant.id: grant for grant in grants}
    ids, paging = page(call, list(by_id), limit=_DEFAULT_PAGE)
    return {"Grants": [_entry(by_id[grant_id], service) for grant_id in ids], **paging}


def _entry(grant: Grant, service: Service) -> Output:
    return {
        "KeyId": service.arn(f"key/{grant.key_id}"),
        "GrantId": grant.id,
        "Name": grant.name or "",
        "CreationDate": date(grant.created),
        "GranteePrincipal": grant.grantee,
        "GranteeServicePrincipal": grant.grantee_service,
        "RetiringPrincipal": grant.retiring,
        "RetiringServicePrincipal": grant.retiring_service,
        "IssuingAccount": f"arn:{service.settings.partition.name}:iam::{service.settings.account}:root",
        "Operations": grant.operations.split(),
        "Constraints": json.loads(grant.constraints) or None,  # noqa: TID251 (written by this module)
    }
