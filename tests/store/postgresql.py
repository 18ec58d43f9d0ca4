"""A temporary PostgreSQL cluster from Debian's package, on a Unix socket, run by an unprivileged user."""

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg


class NoPostgresql(Exception):
    """Why there is none here."""


class Cluster:
    """A running cluster. `database()` makes an empty database and gives its URL."""

    def __init__(self, folder: Path, *, binaries: Path, user: str) -> None:
        self._folder = folder
        self._binaries = binaries
        self._user = user
        self._numbers = count(1)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"catalog{next(self._numbers)}"
        with psycopg.connect(f"host={self._folder} user=holdfast dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://holdfast@/{name}?host={self._folder}"

    def create(self) -> None:
        """Write the cluster's files."""
        self._run("initdb", "--auth=trust", "--username=holdfast", "--no-sync", "-D", str(self._folder / "data"))

    def start(self) -> None:
        """Start the server and wait for it."""
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off -c max_connections=50"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", "30", "-D", str(self._folder / "data"), "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop the server as a crash would."""
        self._run("pg_ctl", "stop", "-w", "-t", "30", "-m", "immediate", "-D", str(self._folder / "data"))

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["su", self._user, "-s", "/bin/sh", "-c", shlex.join(command)]
        result = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if result.returncode:
            raise NoPostgresql(f"{program} failed: {result.stderr.strip() or result.stdout.strip()}")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster for the length of the block. Raises NoPostgresql."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if binaries is None or not (binaries / "initdb").exists():
        raise NoPostgresql("Debian's postgresql package is not installed")
    user = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam(user)
            except KeyError:
                raise NoPostgresql("there is no user postgres to run it as") from None
            os.chown(folder, account.pw_uid, account.pw_gid)
        running = Cluster(folder, binaries=binaries, user=user)
        running.create()
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
