"""What this machine remembers of the catalog: a database that goes back in time does not undo a stop.

A restored backup, a failover to a replica that lags, or a person with a database client can bring back an older
catalog: an unblocked keystore, an enabled key, a credential that was retired. So each machine keeps a small file with
the highest version it has seen and what stood still at that version. A catalog that is older, or that allows more
without a new version, is doubted; so is one whose recorded entries do not add up (`integrity.py`). Then what stands
still on either side stands still, until a person accepts the catalog (`holdfast catalog accept`).
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from holdfast import durable
from holdfast.keys.model import ExternalKey, Keystore
from holdfast.keys.states import GenerationState
from holdfast.reading import read_file
from holdfast.store.errors import Unavailable
from holdfast.store.view import View
from holdfast.xks.types import KeyStatus


class Memory(msgspec.Struct, frozen=True):
    """What stood still at a version, by names. `doubt` says why the catalog is not believed; None: it is.

    `disabled` has `KEYSTORE/KEY`, `stopped` has `KEYSTORE/KEY/GENERATION` with the reason, `withheld` the same with
    the state of a generation that was taken out of use; `credentials` are the live ones.
    """

    version: int
    doubt: str | None
    blocked: frozenset[str]
    disabled: frozenset[str]
    stopped: dict[str, str]
    credentials: frozenset[str]
    withheld: dict[str, str] = {}

    @classmethod
    def of(cls, view: View) -> "Memory":
        """What stands still in the catalog as it was read."""
        names = {identity: keystore.name for identity, keystore in view.keystores.items()}
        return cls(
            version=view.version,
            doubt=None,
            blocked=frozenset(keystore.name for keystore in view.keystores.values() if keystore.blocked),
            disabled=frozenset(f"{names[row]}/{key}" for row, key in view.disabled if row in names),
            stopped=_named(view.stopped, names),
            credentials=view.live,
            withheld=_named(view.withheld, names),
        )

    def doubt_of(self, found: "Memory") -> str | None:
        """Why the catalog as found now contradicts what is remembered here; None: it does not."""
        if found.version != self.version:
            return self.older(found.version)
        looser = [line for line in self.looser(found) if not line.startswith("credential")]
        return f"{looser[0]}, and its version is {found.version} as before" if looser else None

    def older(self, version: int) -> str | None:
        """Says that a version is older than this, if it is."""
        return f"its version went back from {self.version} to {version}" if version < self.version else None

    def looser(self, found: "Memory") -> list[str]:
        """What the catalog as found now allows, and this does not: a line each."""
        return [
            *(f"keystore {name}: blocked -> open" for name in sorted(self.blocked - found.blocked)),
            *(f"key {name}: disabled -> enabled" for name in sorted(self.disabled - found.disabled)),
            *(f"key {name}: stopped -> in use" for name in sorted(self.stopped.keys() - found.stopped)),
            *(
                f"key {name}: {self.withheld[name]} -> in use"
                for name in sorted(self.withheld.keys() - found.withheld)
            ),
            *(f"credential {name}: refused -> live" for name in sorted(found.credentials - self.credentials)),
        ]

    def with_stricter(self, found: "Memory", doubt: str) -> "Memory":
        """What stands still on either side; credentials live only on both."""
        return Memory(
            version=max(self.version, found.version),
            doubt=doubt,
            blocked=self.blocked | found.blocked,
            disabled=self.disabled | found.disabled,
            stopped=found.stopped | self.stopped,
            credentials=self.credentials & found.credentials,
            withheld=found.withheld | self.withheld,
        )

    def applied_to(self, keystores: Mapping[int, Keystore]) -> dict[int, Keystore]:
        """The keystores with everything standing still that is remembered to."""
        touched: dict[str, set[str]] = {}
        for name in self.disabled:
            keystore, _, key = name.partition("/")
            touched.setdefault(keystore, set()).add(key)
        for name in (*self.stopped, *self.withheld):
            keystore, _, rest = name.partition("/")
            touched.setdefault(keystore, set()).add(rest.rpartition("/")[0])
        return {
            identity: replace(
                keystore,
                blocked=keystore.blocked or keystore.name in self.blocked,
                blocked_until=None,
                credentials={
                    name: secret for name, secret in keystore.credentials.items() if name in self.credentials
                },
                keys=self._keys(keystore, touched.get(keystore.name, set())),
            )
            for identity, keystore in keystores.items()
        }

    def _keys(self, keystore: Keystore, touched: set[str]) -> Mapping[str, ExternalKey]:
        keys = dict(keystore.keys)
        for name in touched & keys.keys():
            key, place = keys[name], f"{keystore.name}/{name}"
            own = {
                number: replace(
                    one,
                    stopped=one.stopped or self.stopped.get(f"{place}/{number}"),
                    state=_STATES.get(self.withheld.get(f"{place}/{number}", ""), one.state),
                )
                for number, one in key.generations.items()
            }
            status = KeyStatus.DISABLED if place in self.disabled else key.status
            keys[name] = replace(key, status=status, generations=own, active=own[key.active.number])
        return keys


_STATES = {state.value: state for state in GenerationState}


def _named(marked: Mapping[tuple[int, str], Mapping[int, str]], names: Mapping[int, str]) -> dict[str, str]:
    return {
        f"{names[row]}/{key}/{number}": text
        for (row, key), generations in marked.items()
        if row in names
        for number, text in generations.items()
    }


class MemoryFile:
    """The file of one machine. Its workers share it; each write replaces it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> Memory | None:
        """What is remembered; None where there is no file yet. Raises Unavailable."""
        self._stamp = self._look()
        try:
            return _DECODER.decode(read_file(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be read: {error.strerror}") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise Unavailable(
                f"{self.path} is damaged ({error}): `holdfast catalog accept` writes another one"
            ) from None

    def changed(self) -> bool:
        """Whether another process has written it since it was last read or written here."""
        return self._look() != self._stamp

    def write(self, memory: Memory) -> bool:
        """Keep this instead; False: another process writes or has written meanwhile; read that first.

        Raises Unavailable.
        """
        try:
            durable.make_directory(self.path.parent)
            with _locked(self.path.parent) as locked:
                if not locked or self.changed():
                    return False
                content = msgspec.json.format(msgspec.json.encode(memory, order="sorted")) + b"\n"
                durable.replace(self.path, content, like=self.path.parent)
                self._stamp = self._look()
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be written ({error.strerror}): after a restart this machine would not notice"
                " an older catalog; `state` in [catalog] names another file"
            ) from None
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether the lock was free: whoever can read the directory could keep it, and nothing must wait for that."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


_DECODER = msgspec.json.Decoder(Memory)
