"""A path either names one target whose own path is that very path, or is an InvalidUriPathException."""

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.uri import MAX_URI_LENGTH, parse_path, request_path


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        target = parse_path(data)
    except XksError as error:
        assert error.name is ErrorName.INVALID_URI_PATH
        return
    assert request_path(target).encode() == data
    assert len(data) <= MAX_URI_LENGTH


if __name__ == "__main__":
    from harness import main

    main(invariant)
