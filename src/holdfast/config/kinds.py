"""What a value of the configuration file may be: a parser for each kind, with error messages for people."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from holdfast.config.model import Address
from holdfast.hsm.settings import TokenSelector
from holdfast.secrets.errors import ReferenceRefused
from holdfast.secrets.reference import SecretReference, Source

_LOG_NAME = re.compile(r"[A-Za-z0-9._~/-]{1,128}")


class Refused(Exception):
    """The value is not of its kind. `text` continues the sentence "`key` in [table] ..."."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Kind(Protocol):
    """A kind of value. `words` names it in the reference; `parse` raises Refused."""

    @property
    def words(self) -> str:
        """As in "an integer from 1 to 64"."""

    def parse(self, value: Any, folder: Path) -> Any:
        """The value of the model. Relative paths are resolved against `folder`."""


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer within bounds; `scale` divides it for the model (milliseconds to seconds)."""

    low: int
    high: int
    scale: int = 1

    @property
    def words(self) -> str:
        """As in `Kind`."""
        return f"integer, {self.low} to {self.high}"

    def parse(self, value: Any, folder: Path) -> int | float:
        """The integer, or its scaled float."""
        del folder
        if type(value) is not int:  # a bool is an int to isinstance
            raise Refused(f"must be an integer, not {_shown(value)}")
        if not self.low <= value <= self.high:
            raise Refused(f"is {literal(value)}, and must be from {self.low} to {self.high}")
        return value if self.scale == 1 else value / self.scale


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds within bounds."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """As in `Kind`."""
        return f"seconds, {self.low:g} to {self.high:g}"

    def parse(self, value: Any, folder: Path) -> float:
        """The seconds as a float."""
        del folder
        if type(value) not in {int, float} or value != value:  # noqa: PLR0124 (NaN is the value that is not itself)
            raise Refused(f"must be a number of seconds, not {_shown(value)}")
        if not self.low <= value <= self.high:
            raise Refused(f"is {literal(value)}, and must be from {self.low:g} to {self.high:g} seconds")
        return float(value)


@dataclass(frozen=True, slots=True)
class Text:
    """A string that is not empty."""

    words: ClassVar[str] = "string"

    def parse(self, value: Any, folder: Path) -> str:
        """The string itself."""
        del folder
        if not isinstance(value, str):
            raise Refused(f"must be a string, not {_shown(value)}")
        if not value or "\x00" in value:
            raise Refused("must not be empty" if not value else "must not hold a NUL")
        return value


@dataclass(frozen=True, slots=True)
class LogName:
    """The name of an audit log: it stands in signed notes, which allow no space and no plus sign."""

    words: ClassVar[str] = "string"

    def parse(self, value: Any, folder: Path) -> str:
        """The string itself."""
        name = Text().parse(value, folder)
        if not _LOG_NAME.fullmatch(name):
            raise Refused(f"must have 1 to 128 of A-Z a-z 0-9 . _ ~ / -, not {_shown(value)}")
        return name


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few strings or integers; `make` turns it into the model's value."""

    values: tuple[str | int, ...]
    make: Callable[[Any], Any]

    @property
    def words(self) -> str:
        """As in `Kind`."""
        return " or ".join(literal(value) for value in self.values)

    def parse(self, value: Any, folder: Path) -> Any:
        """The model's value."""
        del folder
        if type(value) not in {str, int} or value not in self.values:
            raise Refused(f"must be {self.words}, not {_shown(value)}")
        return self.make(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    words: ClassVar[str] = "true or false"

    def parse(self, value: Any, folder: Path) -> bool:
        """The flag."""
        del folder
        if not isinstance(value, bool):
            raise Refused(f"must be true or false, not {_shown(value)}")
        return value


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path; a relative one starts at the configuration file's folder."""

    words: ClassVar[str] = "path"

    def parse(self, value: Any, folder: Path) -> Path:
        """An absolute path, if `folder` is one."""
        return folder / Text().parse(value, folder)


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library: a path as above, or a bare name that the dynamic linker finds."""

    words: ClassVar[str] = "path, or a library's name"

    def parse(self, value: Any, folder: Path) -> str:
        """What dlopen is given."""
        text = Text().parse(value, folder)
        return str(folder / text) if "/" in text else text


@dataclass(frozen=True, slots=True)
class Listener:
    """`HOST:PORT`, an IPv6 host in brackets."""

    words: ClassVar[str] = "HOST:PORT"
    _ADDRESS: ClassVar[re.Pattern[str]] = re.compile(
        r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})"
    )

    def parse(self, value: Any, folder: Path) -> Address:
        """The address; the host is not looked up."""
        match = self._ADDRESS.fullmatch(Text().parse(value, folder))
        if match is None:
            raise Refused(f"must be HOST:PORT as in 0.0.0.0:443 or [::]:443, not {_shown(value)}")
        port = int(match["port"])
        if not 1 <= port <= 65_535:  # noqa: PLR2004 (TCP's ports)
            raise Refused(f"has the port {port}, and a port is from 1 to 65535")
        return Address(match["six"] or match["host"], port)


@dataclass(frozen=True, slots=True)
class Networks:
    """IP networks in CIDR notation; an address alone stands for itself."""

    words: ClassVar[str] = "list of networks"

    def parse(self, value: Any, folder: Path) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks; none is an empty list."""
        del folder
        if not isinstance(value, list):
            raise Refused(f'must be a list of networks, as in ["10.0.0.0/8"], not {_shown(value)}')
        networks = []
        for text in value:
            try:
                # A number would be read as an address.
                networks.append(ip_network(text if isinstance(text, str) else ""))
            except ValueError:
                raise Refused(
                    f'holds {literal(text)}, which is not a network, as in "10.0.0.0/8" or "2001:db8::/32"'
                ) from None
        return tuple(networks)


@dataclass(frozen=True, slots=True)
class CatalogUrl:
    """`sqlite:///PATH` or `postgresql://...`, without a password."""

    words: ClassVar[str] = "URL"

    def parse(self, value: Any, folder: Path) -> str:
        """The URL; an SQLite path is made absolute."""
        text = Text().parse(value, folder)
        try:
            url = urlsplit(text)
            password = url.password
        except ValueError:
            raise Refused("is not a URL") from None
        if password is not None or "password=" in url.query.lower():
            raise Refused(
                "must not hold the password: put it in a file in PostgreSQL's .pgpass format, mode 0600, and end"
                " the URL with ?passfile=/PATH, or let the service's system user log in (peer authentication)"
            )
        file = text.removeprefix("sqlite:///")
        if file != text and file.strip("/") and "?" not in file:
            return f"sqlite:///{folder / file}"
        if url.scheme == "postgresql":
            return text
        raise Refused("must be sqlite:///PATH (four slashes for an absolute path) or postgresql://USER@HOST/DATABASE")


@dataclass(frozen=True, slots=True)
class Stop:
    """A count of encryptions, or "never"."""

    words: ClassVar[str] = 'integer, 1 to 2^32, or "never"'

    def parse(self, value: Any, folder: Path) -> int | None:
        """The count, None for never."""
        if value == "never":
            return None
        if isinstance(value, str):
            raise Refused('must be an integer or "never"')
        return int(Integer(1, 2**32).parse(value, folder))


@dataclass(frozen=True, slots=True)
class Environment:
    """A table of environment variables."""

    words: ClassVar[str] = "table of strings"
    _NAME: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

    def parse(self, value: Any, folder: Path) -> dict[str, str]:
        """The variables. A number is refused with the hint to quote it."""
        del folder
        if not isinstance(value, dict):
            raise Refused(f'must be a table as in {{ CKNFAST_LOADSHARING = "1" }}, not {_shown(value)}')
        for name, text in value.items():
            if not self._NAME.fullmatch(name):
                raise Refused(f"has {name!r}, which cannot be the name of an environment variable")
            if not isinstance(text, str) or "\x00" in text:
                raise Refused(f'gives {name} a value that is not a string: quote it, as in {name} = "1"')
        return dict(value)


@dataclass(frozen=True, slots=True)
class Token:
    """Which token: by label, serial number or slot id."""

    words: ClassVar[str] = "{ label = ... } or { serial = ... } or { slot = ... }"

    def parse(self, value: Any, folder: Path) -> TokenSelector:
        """Exactly one of the three."""
        name, chosen = _only_entry(value, ("label", "serial", "slot"), 'token = { label = "holdfast" }')
        match name:
            case "slot":
                if type(chosen) is not int or not 0 <= chosen < 2**64:
                    raise Refused(
                        f"has a slot that is not a slot id: it must be an integer from 0, not {_shown(chosen)}"
                    )
                return TokenSelector(slot=chosen)
            case "label":
                return TokenSelector(label=Text().parse(chosen, folder))
            case _:
                return TokenSelector(serial=Text().parse(chosen, folder))


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a PIN is kept. The value never appears in a message: it may be the PIN itself, by mistake."""

    words: ClassVar[str] = "{ file = ... } or { env = ... } or { credential = ... }"
    _EXAMPLE: ClassVar[str] = (
        'write pin = { file = "/etc/holdfast/pin" }, { env = "NAME" } or { credential = "NAME" } (systemd)'
    )

    def parse(self, value: Any, folder: Path) -> SecretReference:
        """The reference; nothing is read."""
        if not isinstance(value, dict):
            raise Refused(f"must say where the PIN is kept, and must not be the PIN: {self._EXAMPLE}")
        name, chosen = _only_entry(value, tuple(Source), self._EXAMPLE)
        if not isinstance(chosen, str) or not chosen:
            raise Refused(f"must name its {name} in a string: {self._EXAMPLE}")
        try:
            return SecretReference.parse(f"{name}:{folder / chosen if name == Source.FILE else chosen}")
        except ReferenceRefused:
            raise Refused(f"has a {name} whose name is malformed: {self._EXAMPLE}") from None


def _only_entry(value: Any, names: tuple[str, ...], example: str) -> tuple[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"must be a table: {example}")
    unknown = [name for name in value if name not in names]
    if unknown or len(value) != 1:
        raise Refused(f"must have exactly one of {', '.join(names)}: {example}")
    return next(iter(value.items()))


def _shown(value: Any) -> str:
    """A wrong value in an error: its kind where it is long or has parts."""
    match value:
        case bool():
            return literal(value)
        case dict():
            return "a table"
        case list():
            return "an array"
        case str() if len(value) > 40:  # noqa: PLR2004 (what fits in a line)
            return "that string"
        case _:
            return literal(value)


def literal(value: Any) -> str:
    """A value as TOML writes it, if that is short and can be shown."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{printable(value)}"'
        case int() if value.bit_length() > 64:  # noqa: PLR2004 (Python refuses to write out very long numbers)
            return "a number of more than 64 bits"
        case _:
            return str(value)


def printable(text: str) -> str:
    """Text from the file, fit for a terminal: one with control characters is shown escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]
