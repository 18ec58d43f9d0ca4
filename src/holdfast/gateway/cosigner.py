"""A witness of audit logs over HTTP (C2SP tlog-witness): for the second site, or for the auditor.

It remembers the last checkpoint of each log that it knows, and cosigns only what goes on from there. So nobody, not
even who has the log's key, can show it one history and readers another.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from holdfast import durable
from holdfast.audit.checkpoint import Checkpoint
from holdfast.audit.faults import Malformed
from holdfast.audit.keys import Sign, VerifierKey, cosign
from holdfast.audit.note import MAX_NOTE, Note
from holdfast.audit.witness import SIZE_TYPE, Refused, consider

_MAX_BODY = 2 * MAX_NOTE
_TIMEOUT = 10.0
"""Seconds for a request to arrive, and for its answer to be taken."""
_MOST_CONNECTIONS = 32
_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640


class CheckpointStore:
    """The last checkpoint of each log, a file each. One process uses it, one request at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self._directory = directory
        durable.make_directory(directory, mode=_DIRECTORY_MODE)

    def note(self, origin_digest: str) -> bytes | None:
        """The note with our cosignature; None where none was seen. `origin_digest`: SHA-256 in hexadecimal."""
        with suppress(FileNotFoundError):
            return (self._directory / origin_digest).read_bytes()
        return None

    def last(self, origin: str) -> Checkpoint | None:
        """What was cosigned last. Raises Malformed where the file was damaged."""
        raw = self.note(_digest(origin))
        return None if raw is None else Checkpoint.parse(Note.parse(raw).text)

    def keep(self, origin: str, note: bytes) -> None:
        """Replace it, durably. Raises OSError."""
        durable.replace(self._directory / _digest(origin), note, mode=_FILE_MODE)
        durable.sync_directory(self._directory)


class Cosigner:
    """What the witness does with a request, without HTTP. `now` is seconds since 1970; `logs` has keys by origin."""

    def __init__(
        self,
        store: CheckpointStore,
        logs: Mapping[str, Sequence[VerifierKey]],
        signer: tuple[VerifierKey, Sign],
        *,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._logs = logs
        self._key, self._sign = signer
        self._now = now
        self._lock = threading.Lock()

    def add_checkpoint(self, body: bytes) -> bytes:
        """The line with our cosignature. Raises Refused, OSError."""
        with self._lock:
            try:
                signed = consider(body, self._logs, self._store.last)
            except Malformed as error:
                raise Refused(
                    HTTPStatus.INTERNAL_SERVER_ERROR, f"what was cosigned last is damaged: {error}"
                ) from None
            signature = cosign(signed.note.text, self._key, self._sign, time=int(self._now()))
            note = Note(signed.note.text, (*signed.note.signatures, signature))
            # Kept before it is given away: what we have cosigned we never forget.
            self._store.keep(signed.checkpoint.origin, note.encode())
        return signature.line().encode()

    def checkpoint(self, origin_digest: str) -> bytes | None:
        """The last one that was cosigned, for monitors."""
        known = origin_digest in map(_digest, self._logs)
        return self._store.note(origin_digest) if known else None


class CosignerServer(ThreadingHTTPServer):
    """Serves a Cosigner. `say` is given a sentence for each request that was refused, and each failure."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], cosigner: Cosigner, *, say: Callable[[str], None]) -> None:
        """Raises OSError where the address cannot be bound."""
        self.cosigner = cosigner
        self.say = say
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, if there is a place for it."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Then the place is free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: CosignerServer
    timeout = _TIMEOUT
    server_version = "holdfast-witness"
    sys_version = ""

    def do_POST(self) -> None:
        if self.path.rpartition("/")[2] != "add-checkpoint":
            self._answer(HTTPStatus.NOT_FOUND, b"there is only /add-checkpoint\n")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self._answer(HTTPStatus.BAD_REQUEST, b"Content-Length is missing or too large\n")
            return
        body = self.rfile.read(int(length))
        try:
            self._answer(HTTPStatus.OK, self.server.cosigner.add_checkpoint(body))
        except Refused as refused:
            self.server.say(f"refused ({refused.status.value}): {refused.message}")
            kind = SIZE_TYPE if refused.status is HTTPStatus.CONFLICT else "text/plain"
            self._answer(refused.status, refused.body.encode(), kind=kind)
        except OSError as error:
            self.server.say(f"the checkpoint cannot be kept, so it is not cosigned: {error}")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the checkpoint cannot be kept\n")

    def do_GET(self) -> None:
        *_, digest, last = ("", *self.path.split("/"))
        found = self.server.cosigner.checkpoint(digest) if last == "checkpoint" else None
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, b"no such checkpoint\n")
        else:
            self._answer(HTTPStatus.OK, found)

    def _answer(self, status: HTTPStatus, body: bytes, *, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Refusals are told by `say`; the rest is no news."""


def _digest(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()
