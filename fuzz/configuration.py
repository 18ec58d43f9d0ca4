"""Every configuration file is a Configuration that holds no secret, or a ConfigurationError with its problems."""

import pickle
from pathlib import Path

from holdfast.config.errors import ConfigurationError
from holdfast.config.load import parse

FILE = Path("/etc/holdfast/holdfast.toml")


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # `load` refuses such a file before it is parsed
    try:
        configuration = parse(text, FILE)
    except ConfigurationError as error:
        assert str(error)
        assert all(character == "\n" or character.isprintable() for character in str(error))
        return
    assert configuration.hsms
    assert pickle.loads(pickle.dumps(configuration)) == configuration  # noqa: S301 (our own bytes)


if __name__ == "__main__":
    from harness import main

    main(invariant)
