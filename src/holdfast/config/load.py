"""Reads the configuration file, and reports everything that is wrong with it at once."""

import difflib
import itertools
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast.config import lines, reference
from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.kinds import Refused, printable
from holdfast.config.model import (
    Address,
    Audit,
    Authorization,
    CatalogSettings,
    Configuration,
    HsmTable,
    Log,
    Server,
    Tls,
)
from holdfast.config.policies import parse_policies, read_policies
from holdfast.config.reference import Absent, Key, Table
from holdfast.config.safe_path import distrust_library
from holdfast.config.text import read_text
from holdfast.hsm.settings import HsmSettings, LoginMode
from holdfast.keys.budget import EncryptionLimits

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>[0-9]+), column (?P<column>[0-9]+)|end of document)\)")
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared, not bound)


def load(path: Path) -> Configuration:
    """The configuration in `path`. Raises ConfigurationError.

    Its TLS files can be read, its policies are valid, and no other user can change it or the libraries it names.
    """
    text = read_text(path, language="TOML")
    reader = _Reader(text, path)
    configuration = reader.configuration()
    reader.check_files(configuration)
    if configuration.authorization is None:
        return configuration
    authorization = read_policies(configuration.authorization.policies)
    parse_policies(authorization)
    return replace(configuration, authorization=authorization)


def parse(text: str, path: Path) -> Configuration:
    """The configuration in `text`, as if it were the file `path`; no file is touched. Raises ConfigurationError."""
    return _Reader(text, path).configuration()


class _Reader:
    """One reading of one file. Problems are collected; the model is built only if there are none."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self._folder = path.absolute().parent
        self._problems: list[Problem] = []
        try:
            self._document = tomllib.loads(text)
            self._lines = lines.lines_of(text)
        except RecursionError:
            raise ConfigurationError(str(path), (Problem(None, "is nested too deeply"),)) from None
        except ValueError as error:  # TOMLDecodeError, or a number too long for Python
            raise ConfigurationError(str(path), (_syntax_problem(text, error),)) from None

    def configuration(self) -> Configuration:
        """The whole file as values. Raises ConfigurationError."""
        self._refuse_unknown_tables()
        server = self._table(reference.SERVER, ("server",), required=True)
        tls = self._optional_table(reference.TLS)
        catalog = self._table(reference.CATALOG, ("catalog",))
        limits = self._table(reference.ENCRYPTION_LIMIT, ("encryption_limit",))
        authorization = self._optional_table(reference.AUTHORIZATION)
        if server.get("require_policies") and authorization is None:
            self._problem(
                ("server", "require_policies"),
                "`require_policies` in [server] is true, and there is no table [authorization]",
            )
        log = self._table(reference.LOG, ("log",))
        audit = self._optional_table(reference.AUDIT)
        hsms = self._hsm_tables()
        self._check_audit(audit, hsms)
        self._check_listeners(server)
        health_tls = self._listener_tls(reference.HEALTH_TLS, server)
        metrics_tls = self._listener_tls(reference.METRICS_TLS, server)
        self._check_mutual_tls("tls", tls)
        self._check_limits(limits)
        for name, hsm in hsms.items():
            self._check_login(name, hsm)
        self._raise_problems()
        return Configuration(
            path=self._path.absolute(),
            server=_server(server),
            tls=None if tls is None else Tls(**tls),
            catalog=_catalog(catalog),
            encryption_limits=EncryptionLimits(**limits),
            authorization=None if authorization is None else Authorization(**authorization),
            log=Log(log["events"], log["required"]),
            hsms={name: _hsm(name, hsm) for name, hsm in hsms.items()},
            health_tls=None if health_tls is None else Tls(**health_tls),
            metrics_tls=None if metrics_tls is None else Tls(**metrics_tls),
            audit=None if audit is None else _audit(audit, hsms),
        )

    def check_files(self, configuration: Configuration) -> None:
        """Raises ConfigurationError for TLS files that cannot be opened and libraries that others can change."""
        tables = {
            "tls": configuration.tls,
            "health_tls": configuration.health_tls,
            "metrics_tls": configuration.metrics_tls,
        }
        for listener, tls in tables.items():
            self._check_tls_files(listener, tls)
        for name, table in configuration.hsms.items():
            if why := distrust_library(table.settings.library):
                self._problem(("hsm", name, "library"), f"`library` in [hsm.{name}] {why}")
        self._raise_problems()

    def _check_tls_files(self, table: str, tls: Tls | None) -> None:
        for name in ("certificate", "private_key", "client_ca"):
            file: Path | None = None if tls is None else getattr(tls, name)
            if file is None:
                continue
            try:
                file.open("rb").close()
            except OSError as error:
                self._problem((table, name), f"`{name}` in [{table}]: {file} cannot be read: {error.strerror}")

    def _refuse_unknown_tables(self) -> None:
        known = [table.name.partition(".")[0] for table in reference.TABLES]
        for name, value in self._document.items():
            if name not in known:
                what = (
                    f"unknown table [{name}]" if isinstance(value, dict) else f"unknown key `{name}` before any table"
                )
                self._problem((name,), what + _nearest(name, known, "[{}]"))

    def _hsm_tables(self) -> dict[str, dict[str, Any]]:
        tables = self._document.get("hsm", {})
        if not isinstance(tables, dict) or not tables:
            self._problem(("hsm",), "no HSM: add a table [hsm.NAME]")
            return {}
        found = {}
        for name, content in tables.items():
            if not isinstance(content, dict):
                self._problem(
                    ("hsm", name),
                    f"`{printable(name)}` in [hsm]: each HSM has a table with a name of its own, as in [hsm.main]",
                )
                continue
            if not _NAME.fullmatch(name):
                self._problem(
                    ("hsm", name), f"`{printable(name)}` cannot be the name of an HSM: use 1 to 64 of A-Z a-z 0-9 _ -"
                )
            found[name] = self._table(reference.HSM, ("hsm", name))
        return found

    def _optional_table(self, table: Table) -> dict[str, Any] | None:
        return self._table(table, (table.name,)) if table.name in self._document else None

    def _table(self, table: Table, path: lines.Path, *, required: bool = False) -> dict[str, Any]:
        """Every key of one table with its value or default; what was refused is missing and a problem."""
        content: Any = self._document
        for name in path:
            content = content.get(name, {})
        shown = f"[{printable('.'.join(map(str, path)))}]"
        if not isinstance(content, dict):
            self._problem(path, f"{shown} must be a table")
            return {}
        if required and path not in self._lines:
            self._problem(path, f"no table {shown}")
            return {}
        names = [key.name for key in table.keys]
        for name in content:
            if name not in names:
                self._problem(
                    (*path, name), f"unknown key `{printable(name)}` in {shown}{_nearest(name, names, '`{}`')}"
                )
        values = {}
        for key in table.keys:
            try:
                values[key.name] = self._value(key, content)
            except Refused as refused:
                where = (*path, key.name) if key.name in content else path
                self._problem(where, f"`{key.name}` in {shown} {refused.text}")
        return values

    def _value(self, key: Key, content: dict[str, Any]) -> Any:
        if key.name in content:
            return key.kind.parse(content[key.name], self._folder)
        match key.default:
            case Absent.REQUIRED:
                raise Refused(f"is missing: it is required ({key.kind.words})")
            case Absent.NONE:
                return None
            case written:
                return key.kind.parse(written, self._folder)

    def _check_listeners(self, server: dict[str, Any]) -> None:
        names = [name for name in ("listen", "health_listen", "metrics_listen") if server.get(name) is not None]
        for position, name in enumerate(names):
            for earlier in names[:position]:
                if _overlap(server[name], server[earlier]):
                    self._problem(
                        ("server", name),
                        f"`{name}` in [server] is the address of `{earlier}` already: use another port",
                    )

    def _listener_tls(self, table: Table, server: dict[str, Any]) -> dict[str, Any] | None:
        """The TLS of a listener that may be left out."""
        tls = self._optional_table(table)
        listener = table.name.replace("_tls", "_listen")
        if tls is not None and listener in server and server[listener] is None:
            self._problem((table.name,), f"[{table.name}] is for `{listener}` in [server], which is missing")
        self._check_mutual_tls(table.name, tls)
        return tls

    def _check_mutual_tls(self, table: str, tls: dict[str, Any] | None) -> None:
        if tls is None or "client_ca" not in tls or "client_subject" not in tls:
            return
        for name, other in (("client_ca", "client_subject"), ("client_subject", "client_ca")):
            if tls[name] is not None and tls[other] is None:
                self._problem(
                    (table, name),
                    f"`{name}` in [{table}] without `{other}`: mutual TLS needs both, or neither of them",
                )

    def _check_limits(self, limits: dict[str, Any]) -> None:
        if len(limits) < len(reference.ENCRYPTION_LIMIT.keys):
            return  # one of them was refused already
        order = [(name, limits[name]) for name in ("warn", "alarm", "stop") if limits[name] is not None]
        for (low, low_value), (high, high_value) in itertools.pairwise(order):
            if low_value > high_value:
                path: lines.Path = ("encryption_limit", high)
                self._problem(
                    path if path in self._lines else ("encryption_limit", low),
                    f"`{high}` in [encryption_limit] is {high_value}, below `{low}`, which is {low_value}",
                )

    def _check_audit(self, audit: dict[str, Any] | None, hsms: Collection[str]) -> None:
        if audit is None:
            return
        for name, other in (("control_directory", "control_name"), ("control_name", "control_directory")):
            if audit.get(name) is not None and other in audit and audit[other] is None:
                self._problem(("audit", name), f"`{name}` in [audit] without `{other}`: the control log needs both")
        for name, other in (("directory", "control_directory"), ("name", "control_name")):
            if audit.get(name) is not None and audit.get(name) == audit.get(other):
                self._problem(("audit", other), f"`{other}` in [audit] is `{name}` already: each log has its own")
        if not hsms or "hsm" not in audit or audit.get("key_file") is not None:
            return
        if audit["hsm"] is None and len(hsms) > 1:
            self._problem(("audit",), f"`hsm` in [audit] is missing: say which HSM signs, of {', '.join(hsms)}")
        if audit["hsm"] is not None and audit["hsm"] not in hsms:
            self._problem(
                ("audit", "hsm"),
                f"`hsm` in [audit] is {printable(audit['hsm'])!r}{_nearest(audit['hsm'], list(hsms), '{!r}')}",
            )

    def _check_login(self, name: str, hsm: dict[str, Any]) -> None:
        if "login" not in hsm or "pin" not in hsm:
            return
        if hsm["login"] is LoginMode.USER and hsm["pin"] is None:
            self._problem(("hsm", name, "login"), f'`login` in [hsm.{name}] is "user", which needs a `pin`')
        if hsm["login"] is LoginMode.NONE and hsm["pin"] is not None:
            self._problem(("hsm", name, "pin"), f'`pin` in [hsm.{name}] is never used, because `login` is "none"')

    def _problem(self, path: lines.Path, text: str) -> None:
        line = next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), None)
        self._problems.append(Problem(line, text))

    def _raise_problems(self) -> None:
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: problem.line or 0)
            raise ConfigurationError(str(self._path), tuple(ordered))


def _syntax_problem(text: str, error: ValueError) -> Problem:
    match = _SYNTAX.fullmatch(str(error))
    if match is None:
        return Problem(None, f"is not TOML: {error}")
    if match["line"] is None:
        return Problem(text.rstrip().count("\n") + 1, f"is not TOML: {match['what']}, at the end of the file")
    return Problem(int(match["line"]), f"is not TOML: {match['what']}, at column {match['column']}")


def _nearest(name: str, known: list[str], form: str) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {form.format(near[0])}?" if near else f"; known are {', '.join(known)}"


def _overlap(one: Address, other: Address) -> bool:
    """Whether both cannot be bound. `localhost` is not looked up: it is compared as text."""
    return one.port == other.port and (one.host == other.host or bool(_ANYWHERE & {one.host, other.host}))


def _catalog(values: dict[str, Any]) -> CatalogSettings:
    url, secrets = values["url"], values["secrets_directory"]
    beside = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else secrets
    return CatalogSettings(
        url,
        secrets,
        reference_prefix=values["reference_prefix"],
        state=values["state"] or beside.with_name(f"{beside.name}.seen"),
        stale_limit=values["stale_limit_s"],
    )


def _audit(values: dict[str, Any], hsms: Mapping[str, Any]) -> Audit:
    return Audit(
        values["directory"],
        values["name"],
        hsm=values["hsm"] or next(iter(hsms)),
        key=values["key"],
        key_file=values["key_file"],
        fail_closed=values["fail_closed"],
        interval=values["interval_s"],
        control_directory=values["control_directory"],
        control_name=values["control_name"],
        keep=None if values["keep_days"] is None else timedelta(days=values["keep_days"]),
    )


def _server(values: dict[str, Any]) -> Server:
    return Server(
        listen=values["listen"],
        workers=values["workers"],
        deadline=values["deadline_ms"],
        max_body=values["max_body_bytes"],
        max_headers=values["max_header_bytes"],
        max_connections=values["max_connections"],
        read_timeout=values["read_timeout_s"],
        idle_timeout=values["idle_timeout_s"],
        drain_timeout=values["drain_timeout_s"],
        health_listen=values["health_listen"],
        metrics_listen=values["metrics_listen"],
        require_policies=values["require_policies"],
        max_unauthenticated_per_source=values["max_unauthenticated_per_source"],
        allow_networks=values["allow_networks"],
    )


def _hsm(name: str, values: dict[str, Any]) -> HsmTable:
    settings = {key: value for key, value in values.items() if key not in {"pin", "probe_interval_s"}}
    return HsmTable(HsmSettings(name=name, probe_interval=values["probe_interval_s"], **settings), values["pin"])
