"""KMS's API as botocore's service model states it: request bodies become checked values, results become bodies."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from holdfast.witness.kms.errors import KmsException, validation_error
from holdfast.xks.encoding import decode_base64, decode_json_object, encode_base64
from holdfast.xks.errors import XksError

_MISSING = object()
_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "long": int,
    "boolean": bool,
    "string": str,
    "timestamp": (int, float),
}


@cache
def service_model() -> ServiceModel:
    """KMS's service model, loaded once."""
    return ServiceModel(Loader().load_service_model("kms", "service-2"), "kms")


def operation_of(target: str) -> OperationModel:
    """The operation that `X-Amz-Target` names. Raises KmsException(UnknownOperationException)."""
    prefix, _, name = target.partition(".")
    model = service_model()
    if prefix != model.metadata["targetPrefix"] or name not in model.operation_names:
        raise KmsException("UnknownOperationException", "")
    return model.operation_model(name)


def errors_of(operation: str) -> frozenset[str]:
    """The exceptions that the service model lists for an operation."""
    return frozenset(shape.name for shape in service_model().operation_model(operation).error_shapes)


def parse_input(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """The members of a request body: blobs as bytes, null members left out.

    Raises KmsException: SerializationException for what has the wrong type, ValidationException for what the
    model's constraints forbid. As in KMS, members that the model does not know are ignored.
    """
    try:
        value = decode_json_object(body)
    except XksError as error:
        raise KmsException("SerializationException", error.message) from None
    if operation.input_shape is None:
        return {}
    parsed: dict[str, Any] = _typed(operation.input_shape, value, "")
    errors = list(_violations(operation.input_shape, parsed, ""))
    if errors:
        plural = "s" if len(errors) > 1 else ""
        raise validation_error(f"{len(errors)} validation error{plural} detected: {'; '.join(errors)}")
    return parsed


def encode_output(operation: OperationModel, value: Mapping[str, Any]) -> bytes:
    """A response body. Members that are None are left out; a member unknown to the model is a KeyError."""
    if operation.output_shape is None:
        return b""
    return json.dumps(_encoded(operation.output_shape, value)).encode()


def _typed(shape: Shape, value: Any, path: str) -> Any:
    match shape:
        case StructureShape():
            _require_type(isinstance(value, dict), path)
            return {
                name: _typed(member, value[name], _below(path, name))
                for name, member in shape.members.items()
                if value.get(name) is not None
            }
        case ListShape():
            _require_type(isinstance(value, list), path)
            return [_typed(shape.member, item, f"{path}.{i}.member") for i, item in enumerate(value, 1)]
        case MapShape():
            _require_type(isinstance(value, dict), path)
            return {key: _typed(shape.value, item, _below(path, key)) for key, item in value.items()}
    if shape.type_name == "blob":
        return _blob(value, path)
    # bool is an int to Python, not to JSON.
    right = isinstance(value, _PYTHON_TYPES[shape.type_name])
    _require_type(right and isinstance(value, bool) == (shape.type_name == "boolean"), path)
    return value


def _blob(value: Any, path: str) -> bytes:
    _require_type(isinstance(value, str), path)
    try:
        return decode_base64(value, path)
    except XksError as error:
        raise KmsException("SerializationException", error.message) from None


def _require_type(right: object, path: str) -> None:
    if not right:
        raise KmsException("SerializationException", f"{path or 'the request body'} has the wrong type")


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape:
        case StructureShape():
            for name, member in shape.members.items():
                member_path = _below(path, name)
                if name in value:
                    yield from _violations(member, value[name], member_path)
                elif name in shape.required_members:
                    yield _violation(_MISSING, member_path, "Member must not be null")
        case ListShape():
            yield from _length_violations(shape, value, path)
            for i, item in enumerate(value, 1):
                yield from _violations(shape.member, item, f"{path}.{i}.member")
        case MapShape():
            for key, item in value.items():
                yield from _violations(shape.key, key, path)
                yield from _violations(shape.value, item, _below(path, key))
        case _:
            yield from _scalar_violations(shape, value, path)


def _scalar_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    constraints = shape.metadata
    shown = _MISSING if constraints.get("sensitive") or isinstance(value, bytes) else value
    if shape.type_name in {"string", "blob"}:
        yield from _length_violations(shape, value, path)
    if shape.type_name in {"integer", "long"}:
        if value < constraints.get("min", value):
            yield _violation(shown, path, f"Member must have value greater than or equal to {constraints['min']}")
        if value > constraints.get("max", value):
            yield _violation(shown, path, f"Member must have value less than or equal to {constraints['max']}")
    if "enum" in constraints and value not in constraints["enum"]:
        allowed = ", ".join(constraints["enum"])
        yield _violation(shown, path, f"Member must satisfy enum value set: [{allowed}]")
    if "pattern" in constraints and not _compiled(constraints["pattern"]).fullmatch(value):
        yield _violation(shown, path, f"Member must satisfy regular expression pattern: {constraints['pattern']}")


def _length_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    constraints = shape.metadata
    shown = value if isinstance(value, str) and not constraints.get("sensitive") else _MISSING
    if len(value) < constraints.get("min", 0):
        yield _violation(shown, path, f"Member must have length greater than or equal to {constraints['min']}")
    if len(value) > constraints.get("max", len(value)):
        yield _violation(shown, path, f"Member must have length less than or equal to {constraints['max']}")


def _violation(shown: object, path: str, constraint: str) -> str:
    # A secret or a blob is never repeated.
    quoted = "" if shown is _MISSING else f" '{shown}'"
    return f"Value{quoted} at '{path}' failed to satisfy constraint: {constraint}"


def _below(path: str, name: str) -> str:
    lowered = name[:1].lower() + name[1:]
    return f"{path}.{lowered}" if path else lowered


@lru_cache(maxsize=128)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _encoded(shape: Shape, value: Any) -> Any:
    match shape:
        case StructureShape():
            return {name: _encoded(shape.members[name], item) for name, item in value.items() if item is not None}
        case ListShape():
            return [_encoded(shape.member, item) for item in value]
        case MapShape():
            return {key: _encoded(shape.value, item) for key, item in value.items()}
    if isinstance(value, bytes):
        return encode_base64(value)
    return value.timestamp() if isinstance(value, datetime) else value
