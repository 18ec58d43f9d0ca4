"""A type for secrets that no log line, traceback or f-string can print."""

from typing import Never, Self


class Secret:
    """Bytes that never appear in `repr`, `str`, `format` or a pickle.

    Read them with `reveal()`, where a reviewer can search for it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def of_text(cls, text: str) -> Self:
        """A secret from text, as UTF-8."""
        return cls(text.encode())

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret, {len(self._value)} bytes>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not pickled: pass its reference and read it again")
