"""A temporary PostgreSQL cluster from Debian's package, on a Unix socket, run by an unprivileged user."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.waiting import PATIENCE

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.programs)

# Ends the server, and removes its files at the end of standard input: when this process ends, however it ends.
_KEEPER = """
"$@" < /dev/null > "$FOLDER/log" 2>&1 &
read -r _ && kept=yes
kill -QUIT $!
wait
[ "$kept" ] || rm -rf "$FOLDER"
"""
"""Seconds."""


class NoPostgresql(Exception):
    """Why there is none here."""


class Cluster:
    """A running cluster. `database()` makes an empty database and gives its URL."""

    def __init__(self, folder: Path, *, binaries: Path, account: dict[str, Any]) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._binaries = binaries
        self._account = account
        self._numbers = count(1)
        self._idle: list[str] = []
        self._keeper: subprocess.Popen[bytes] | None = None

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"catalog{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://holdfast@/{name}?host={self._folder}"

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of an empty database, for the block. It is emptied and lent again: to make one writes 300 files."""
        url = self._idle.pop() if self._idle else self.database()
        yield url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
        self._idle.append(url)

    def create(self) -> None:
        """Write the cluster's files. Raises NoPostgresql."""
        result = subprocess.run(
            [self._binaries / "initdb", "--auth=trust", "--username=holdfast", "--no-sync", "-D", self._data],
            cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **self._account,
        )  # fmt: skip
        if result.returncode:
            raise NoPostgresql(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")

    def start(self) -> None:
        """Start the server and wait for it. Raises NoPostgresql."""
        settings = f"listen_addresses= unix_socket_directories={self._folder} fsync=off max_connections=50".split()
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *(f"--{setting}" for setting in settings)]
        self._keeper = subprocess.Popen(
            ["sh", "-c", _KEEPER, "sh", *command],
            cwd="/", env={**os.environ, "FOLDER": str(self._folder)}, stdin=subprocess.PIPE, start_new_session=True,
            **self._account,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    self.stop()
                    raise NoPostgresql(f"it does not start: {(self._folder / 'log').read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop the server as a crash would; its files stay."""
        assert self._keeper is not None
        self._keeper.communicate(b"\n", PATIENCE)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self._folder} user=holdfast dbname=postgres", autocommit=True)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster for the length of the block. Raises NoPostgresql."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if binaries is None or not (binaries / "initdb").exists():
        raise NoPostgresql("Debian's postgresql package is not installed")
    folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        account: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise NoPostgresql("there is no user postgres to run it as") from None
            os.chown(folder, user.pw_uid, user.pw_gid)
            account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
        running = Cluster(folder, binaries=binaries, account=account)
        running.create()
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
