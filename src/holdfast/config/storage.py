"""What is read and written, and where; and who this node is."""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from annotated_types import Interval

from holdfast.audit.faults import Malformed
from holdfast.audit.keys import SignatureType, VerifierKey
from holdfast.config.kinds import Kind, Refused, literal, parse_text, shown

_MOST_ENCRYPTIONS = 2**32
_NODE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_LOG_NAME = re.compile(r"[A-Za-z0-9._~/-]{1,128}")


def _url(value: Any, folder: Path) -> str:
    text = parse_text(value, folder)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSettings:
    """`[catalog]`."""

    url: Annotated[str, Kind("URL", _url)] = "sqlite:///catalog.db"
    """sqlite:///PATH, or for a fleet postgresql://USER@HOST/DATABASE, the password in a passfile."""
    secrets_directory: Path = Path("secrets")
    """One file per credential with its secret access key, mode 0600."""
    reference_prefix: str = "HOLDFAST_SECRET_"
    """How the name in `credential issue --reference env:NAME` or `credential:NAME` begins; a - is a _."""
    state: Path | None = None
    """What this machine has seen of the catalog, so that an older one is noticed. By default beside it, with
    PostgreSQL beside secrets_directory."""
    stale_limit_s: Annotated[float, Interval(ge=1, le=86_400)] = 300
    """While the database is down the proxy serves what it last read for this long, then blocks all keystores."""

    @property
    def state_file(self) -> Path:
        """`state`, or where it is by default."""
        is_file = self.url.startswith("sqlite:///")
        beside = Path(self.url.removeprefix("sqlite:///")) if is_file else self.secrets_directory
        return self.state or beside.with_name(f"{beside.name}.seen")

    @property
    def stop_file(self) -> Path:
        """What `holdfast emergency stop` writes, beside `state_file`."""
        return self.state_file.with_suffix(".stop")


def _stop(value: Any, folder: Path) -> int | None:
    del folder
    if value == "never":
        return None
    if type(value) is not int:
        raise Refused(
            'must be an integer or "never"' if isinstance(value, str) else f"must be an integer, not {shown(value)}"
        )
    if not 1 <= value <= _MOST_ENCRYPTIONS:
        raise Refused(f"is {literal(value)}, and must be from 1 to {_MOST_ENCRYPTIONS}")
    return value


@dataclass(frozen=True, slots=True)
class EncryptionLimits:
    """`[encryption_limit]`, in encryptions per key generation (NIST SP 800-38D, 8.3); `stop` None: never."""

    warn: Annotated[int, Interval(ge=1, le=_MOST_ENCRYPTIONS)] = 2**30
    """One warning in the log. The default is 2^30."""
    alarm: Annotated[int, Interval(ge=1, le=_MOST_ENCRYPTIONS)] = 2**31
    """An alarm in the log. The default is 2^31."""
    stop: Annotated[int | None, Kind('integer, 1 to 2^32, or "never"', _stop)] = 2**32
    """At this count a key only decrypts: Encrypt gets InvalidStateException. 2^32; or "never"."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """`[rotation]`."""

    age_days: Annotated[int, Interval(ge=1, le=36_500)] | None = None
    """Days for which a generation encrypts, of keys without a cryptoperiod of their own. Left out: no end."""
    encryptions: Annotated[int | None, Kind('integer, 1 to 2^32, or "never"', _stop)] = 2**31
    """Encryptions at which a key is due, before [encryption_limit] stops it. 2^31; or "never"."""


@dataclass(frozen=True, slots=True)
class Drill:
    """`[drill]`."""

    every_days: Annotated[int, Interval(ge=1, le=3650)] | None = None
    """Doctor warns of generations that no `holdfast key drill` of another HSM has opened for so long. Left out: it
    does not."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """`[authorization]`. `text` is what the file `policies` held when `load` found it good; None after `parse`.

    It is part of the configuration so that a changed file is a changed configuration, the same for every worker.
    """

    policies: Path
    """A file of Cedar policies. What none of them permits is denied. A changed file is loaded automatically."""
    text: str | None = field(default=None, repr=False, metadata={"toml": False})

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `text`."""
        return sha256((self.text or "").encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Log:
    """`[log]`."""

    events: Path | None = None
    """A file to append to; left out: standard output."""
    required: bool = False
    """Whether an answer waits for its line, and keys are refused while no line can be written."""


def _node_name(value: Any, folder: Path) -> str:
    name = parse_text(value, folder)
    if not _NODE_NAME.fullmatch(name):
        raise Refused(f"must have 1 to 64 of A-Z a-z 0-9 . _ : -, not {shown(value)}")
    return name


NodeName = Annotated[str, Kind("string", _node_name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`[node]`."""

    name: NodeName | None = None
    """How commands call this node: each node has its own. Left out: the host's name and the port."""
    site: NodeName | None = None
    """The place where it stands, such as madrid-1."""


def _log_name(value: Any, folder: Path) -> str:
    """It stands in signed notes, which allow no space and no plus sign."""
    name = parse_text(value, folder)
    if not _LOG_NAME.fullmatch(name):
        raise Refused(f"must have 1 to 128 of A-Z a-z 0-9 . _ ~ / -, not {shown(value)}")
    return name


LogName = Annotated[str, Kind("string", _log_name)]


def _web(value: Any, folder: Path) -> str:
    text = parse_text(value, folder)
    if not text.startswith(("http://", "https://")):
        raise Refused("must be http://... or https://...")
    return text


def _witness_key(value: Any, folder: Path) -> str:
    text = parse_text(value, folder)
    try:
        key = VerifierKey.parse(text)
    except Malformed as error:
        raise Refused(f"is no verifier key: {error.message}") from None
    if key.type is not SignatureType.COSIGNATURE:
        raise Refused("is not the verifier key of a witness: its type is another one")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """`[audit]`."""

    directory: Path
    """The log; every node has its own. It grows for ever."""
    name: LogName
    """The log's own name, in every signature, such as bank.example/holdfast/madrid-1. Never to be changed."""
    hsm: str | None = None
    """The HSM with the key that signs. Left out: the only one."""
    key: str = "holdfast-audit"
    """CKA_LABEL of the key that signs, made by `holdfast audit key create`. It is used for nothing else."""
    key_file: Path | None = None
    """A PEM file with the key instead, for tests: whoever can read the file can forge the log."""
    fail_closed: bool = False
    """Whether an answer waits for its record, and keys are refused while none can be written."""
    interval_s: Annotated[float, Interval(ge=0.2, le=60)] = 10
    """A segment, and a checkpoint, is made at most this often."""
    keep_days: Annotated[int, Interval(ge=1, le=36_500)] | None = None
    """Segments of events are deleted after so many days; proofs of them stay valid. Left out: never."""
    control_directory: Path | None = None
    """The control log, with a leaf for each change: on one host of the installation. Needs control_name."""
    control_name: LogName | None = None
    """The control log's own name. Needs control_directory."""
    witness_url: Annotated[str, Kind("URL", _web)] | None = None
    """A witness that cosigns each checkpoint of this node's log (C2SP tlog-witness). Needs witness_key."""
    witness_key: Annotated[str, Kind("string", _witness_key)] | None = None
    """The witness's verifier key, which `holdfast audit witness` prints. Needs witness_url."""

    @property
    def keep(self) -> timedelta | None:
        """`keep_days`, for how long segments are kept; None: for ever."""
        return None if self.keep_days is None else timedelta(days=self.keep_days)
