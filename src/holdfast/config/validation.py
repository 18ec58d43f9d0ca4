"""Has pydantic read one table, and says what it refuses in the words of the messages."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from holdfast.config.kinds import Kind, literal, shown
from holdfast.config.tables import Key, keys_of


def validate(settings: type, content: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The value or default of each key of a table, or what is wrong with which; relative paths start at `folder`.

    A text continues the sentence "`key` in [table] ...".
    """
    try:
        return dict(_model(settings).model_validate(content, context=folder)), {}
    except ValidationError as refused:
        errors = {error["loc"][0]: error for error in refused.errors(include_url=False)}
        return {}, {key.name: _text(key, errors[key.name]) for key in keys_of(settings) if key.name in errors}


@cache
def _model(settings: type) -> type[BaseModel]:
    config = ConfigDict(strict=True, validate_default=True)
    fields: dict[str, Any] = {key.name: _field(key) for key in keys_of(settings)}
    return create_model(settings.__name__, __config__=config, **fields)


def _field(key: Key) -> tuple[Any, Any]:
    read = Annotated[Any, key.type] if isinstance(key.type, Kind) else key.type
    if key.is_required:
        return read, ...
    return (read | None if key.default is None else read), key.default


def _text(key: Key, error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return f"is missing: it is required ({key.words})"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    value = error["input"]
    if key.range is None:
        return f"must be {key.words}, not {shown(value)}"
    low, high = key.range
    is_seconds = key.words.startswith("seconds")
    if type(value) is int or (is_seconds and type(value) is float and value == value):  # noqa: PLR0124 (not NaN)
        return f"is {literal(value)}, and must be from {low} to {high}{' seconds' if is_seconds else ''}"
    return f"must be {'a number of seconds' if is_seconds else 'an integer'}, not {shown(value)}"
