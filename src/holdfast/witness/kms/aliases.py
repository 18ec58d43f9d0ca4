"""CreateAlias, UpdateAlias, DeleteAlias, ListAliases."""

from dataclasses import replace

from holdfast.witness.kms import aws_managed
from holdfast.witness.kms.call import Call, Output, Service, page
from holdfast.witness.kms.errors import KmsException, validation_error
from holdfast.witness.kms.key_lookup import key_of
from holdfast.witness.kms.records import Alias

_PREFIX = "alias/"


async def create(call: Call, service: Service) -> Output:
    """CreateAlias."""
    name = _own_name(call)
    if name == _PREFIX:
        raise KmsException("InvalidAliasNameException", f"An alias name has at least one character after {_PREFIX}.")
    key = key_of(call, service, "TargetKeyId")
    if service.state.find(Alias, name=name) is not None:
        raise KmsException("AlreadyExistsException", f"An alias with the name {service.arn(name)} already exists")
    now = service.timestamp()
    service.state.put(Alias(name, key.id, now, now))
    return {}


async def update(call: Call, service: Service) -> Output:
    """UpdateAlias: the alias moves to another key."""
    _own_name(call)
    alias = _of_name(call, service)
    key = key_of(call, service, "TargetKeyId")
    service.state.put(replace(alias, key_id=key.id, updated=service.timestamp()))
    return {}


async def delete(call: Call, service: Service) -> Output:
    """DeleteAlias."""
    if not call.input["AliasName"].startswith(_PREFIX):
        raise validation_error("Invalid identifier")
    _own_name(call)
    service.state.delete(_of_name(call, service))
    return {}


async def list_aliases(call: Call, service: Service) -> Output:
    """ListAliases: all, or those of one key."""
    chosen = {"key_id": key_of(call, service).id} if "KeyId" in call.input else {}
    aliases = {alias.name: alias for alias in service.state.select(Alias, **chosen)}
    names, paging = page(call, list(aliases), limit=50)
    return {"Aliases": [_entry(aliases[name], service) for name in names], **paging}


def _own_name(call: Call) -> str:
    """The alias name of a request that changes it. Raises KmsException."""
    name = str(call.input["AliasName"])
    if not name.startswith(_PREFIX):
        raise validation_error(
            f'Alias must start with the prefix "{_PREFIX}". Please see '
            "https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html"
        )
    if name.startswith(aws_managed.PREFIX):
        raise KmsException("NotAuthorizedException", f"{aws_managed.PREFIX} is reserved for AWS managed keys.")
    return name


def _of_name(call: Call, service: Service) -> Alias:
    name = call.input["AliasName"]
    alias = service.state.find(Alias, name=name)
    if alias is None:
        raise KmsException("NotFoundException", f"Alias {service.arn(name)} is not found.")
    return alias


def _entry(alias: Alias, service: Service) -> Output:
    return {
        "AliasName": alias.name,
        "AliasArn": service.arn(alias.name),
        "TargetKeyId": alias.key_id,
        "CreationDate": alias.created,
        "LastUpdatedDate": alias.updated,
    }
