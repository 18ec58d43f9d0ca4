"""Runs an invariant under Atheris, and hands it out to the tests."""

import sys
from collections.abc import Callable

Invariant = Callable[[bytes], None]


def main(invariant: Invariant) -> None:
    """Fuzz with the arguments of libFuzzer."""
    import atheris  # noqa: PLC0415 (installed for fuzzing only)

    atheris.instrument_all()
    atheris.Setup(sys.argv, invariant)
    atheris.Fuzz()
