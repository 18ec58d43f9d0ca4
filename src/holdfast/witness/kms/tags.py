"""TagResource, UntagResource, ListResourceTags."""

from collections.abc import Mapping, Sequence

from holdfast.witness.kms.call import Call, Output, Service, page
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.key_lookup import key_of
from holdfast.witness.kms.records import Key, Tag

MAX_TAGS = 50
"""Per key (KMS quotas)."""


async def tag(call: Call, service: Service) -> Output:
    """TagResource: adds tags, replaces the values of those there."""
    key = key_of(call, service)
    put(key, parse(call.input["Tags"]), service)
    return {}


async def untag(call: Call, service: Service) -> Output:
    """UntagResource."""
    key = key_of(call, service)
    for name in call.input["TagKeys"]:
        service.state.delete(Tag(key.id, name, ""))
    return {}


async def list_tags(call: Call, service: Service) -> Output:
    """ListResourceTags."""
    key = key_of(call, service)
    values = {each.name: each.value for each in service.state.select(Tag, key_id=key.id)}
    names, paging = page(call, list(values), limit=50)
    return {"Tags": [{"TagKey": name, "TagValue": values[name]} for name in names], **paging}


def parse(given: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The tags of a request. Raises KmsException(TagException)."""
    values = {each["TagKey"]: each["TagValue"] for each in given}
    if len(values) != len(given):
        raise KmsException("TagException", "A tag key appears twice.")
    if any(name.lower().startswith("aws:") for name in values):
        raise KmsException("TagException", "A tag key may not begin with aws:")
    if len(values) > MAX_TAGS:
        raise KmsException("TagException", "Too many tags")
    return values


def put(key: Key, values: Mapping[str, str], service: Service) -> None:
    """Stores tags of a key. Raises KmsException(LimitExceededException)."""
    there = {each.name for each in service.state.select(Tag, key_id=key.id)}
    if len(there.union(values)) > MAX_TAGS:
        raise KmsException("LimitExceededException", f"A KMS key has at most {MAX_TAGS} tags.")
    for name, value in values.items():
        service.state.put(Tag(key.id, name, value))
