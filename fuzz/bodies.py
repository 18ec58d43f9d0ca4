"""What holds of each of the four request bodies, and of strict JSON beside another reader of it."""

import json
from typing import Any, Protocol, Self

from holdfast.xks.encoding import decode_json_object
from holdfast.xks.errors import ErrorName, XksError


class Request(Protocol):
    """A request of holdfast.xks.messages."""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises XksError."""

    def to_json(self) -> bytes:
        """The body."""


def check_request(kind: type[Request], data: bytes) -> None:
    """Parse, write, parse: nothing may change, and nothing may be refused with another name."""
    try:
        request = kind.parse(data)
    except XksError as error:
        assert error.name is ErrorName.VALIDATION
        assert error.__cause__ is None
        return
    again = kind.parse(request.to_json())
    assert again == request
    assert again.to_json() == request.to_json()
    check_strict(data)


def check_strict(data: bytes) -> None:
    """What we read, the standard library's ordinary reader reads the same; there is no second reading."""
    ours: dict[str, Any] = decode_json_object(data)
    theirs = json.JSONDecoder().decode(data.decode())
    # As text, since 1e999 is read as infinity by both, and NaN, which is not equal to itself, by neither.
    assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
