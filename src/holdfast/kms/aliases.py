"""CreateAlias, UpdateAlias, DeleteAlias, ListAliases."""

from dataclasses import replace

from holdfast.kms.call import Call, Output, Service, page
from holdfast.kms.errors import KmsException
from holdfast.kms.key_lookup import key_of
from holdfast.kms.records import Alias


async def create(call: Call, service: Service) -> Output:
    """CreateAlias."""
    name = call.input["AliasName"]
    if not name.startswith("alias/") or name == "alias/":
        raise KmsException("InvalidAliasNameException", "An alias name begins with alias/ and goes on.")
    if name.startswith("alias/aws/"):
        raise KmsException("InvalidAliasNameException", "alias/aws/ is reserved for AWS managed keys.")
    key = key_of(call.input["TargetKeyId"], service)
    if service.state.find(Alias, name=name) is not None:
        raise KmsException("AlreadyExistsException", f"An alias with the name {service.arn(name)} already exists")
    now = service.timestamp()
    service.state.put(Alias(name, key.id, now, now))
    return {}


async def update(call: Call, service: Service) -> Output:
    """UpdateAlias: the alias moves to another key."""
    alias = _of_name(call, service)
    key = key_of(call.input["TargetKeyId"], service)
    service.state.put(replace(alias, key_id=key.id, updated=service.timestamp()))
    return {}


async def delete(call: Call, service: Service) -> Output:
    """DeleteAlias."""
    service.state.delete(_of_name(call, service))
    return {}


async def list_aliases(call: Call, service: Service) -> Output:
    """ListAliases: all, or those of one key."""
    chosen = {"key_id": key_of(call.input["KeyId"], service).id} if "KeyId" in call.input else {}
    aliases = {alias.name: alias for alias in service.state.select(Alias, **chosen)}
    names, paging = page(call, list(aliases))
    return {"Aliases": [_entry(aliases[name], service) for name in names], **paging}


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
