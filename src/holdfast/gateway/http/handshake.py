"""The server's TLS handshake: a refusal reaches the client as an alert, and the client's subject is judged in it."""

import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

PeerCertificate = Mapping[str, object]
"""What `SSLObject.getpeercert` returns."""

_ACCESS_DENIED = bytes.fromhex("15 03 03 00 02 02 31")
"""A fatal alert of TLS 1.2 before the server's ChangeCipherSpec: RFC 5246, 7.2.2, access_denied (49)."""


@dataclass(slots=True)
class Handshake:
    """What became of one handshake. `refusal`: why it was refused, in OpenSSL's word where it was OpenSSL."""

    refusal: str | None = None


HANDSHAKE: ContextVar[Handshake | None] = ContextVar("handshake", default=None)
"""The handshake of the connection that this task accepts: the event loop hands no argument through to `wrap_bio`."""


class HandshakeContext(ssl.SSLContext):
    """A server context whose handshakes end as `_Handshake` says.

    `admits` judges the client's certificate, which the context demands and verifies; None: it is not judged.
    """

    admits: Callable[[PeerCertificate], bool] | None = None

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        """The TLS side of one connection."""
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        if isinstance(made, _Handshake):
            made.outgoing, made.admits, made.handshake = outgoing, self.admits, HANDSHAKE.get()
        return made


class _Handshake(ssl.SSLObject):
    """Of one connection. A failure is raised once the alert that goes with it is on its way.

    uvloop sends nothing after an error (as asyncio did, python/cpython issue 98078). Asked to wait for the client it
    sends the alert; the client closes, or sends more and is not answered, or the handshake takes too long.
    """

    outgoing: ssl.MemoryBIO
    admits: Callable[[PeerCertificate], bool] | None = None
    handshake: Handshake | None = None
    refused: str | None = None

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until it is done or refused, SSLError when it is refused."""
        if self.refused is not None:
            raise ssl.SSLError(self.refused)
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            self._note((error.reason or "unknown").lower())
            if not self.outgoing.pending:
                raise
            self.refused = str(error)
            raise ssl.SSLWantReadError from None
        if self.admits is not None and not self.admits(self.getpeercert() or {}):
            self._refuse_subject("the client certificate has another subject, or has expired")

    def _refuse_subject(self, reason: str) -> None:
        self._note("client_subject")
        # What waits to be sent, our Finished in TLS 1.2 and session tickets in 1.3, would say that all is well.
        self.outgoing.read()
        if self.version() != "TLSv1.2" or self.session_reused:
            raise ssl.SSLError(reason)
        self.outgoing.write(_ACCESS_DENIED)
        self.refused = reason
        raise ssl.SSLWantReadError

    def _note(self, refusal: str) -> None:
        if self.handshake is not None and self.handshake.refusal is None:
            self.handshake.refusal = refusal


HandshakeContext.sslobject_class = _Handshake
