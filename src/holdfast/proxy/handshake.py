"""The server's TLS handshake: a refusal reaches the client as an alert, and the client's subject is judged in it."""

import ssl
from collections.abc import Callable, Mapping
from typing import Any

PeerCertificate = Mapping[str, object]
"""What `SSLObject.getpeercert` returns."""

_ACCESS_DENIED = bytes.fromhex("15 03 03 00 02 02 31")
"""A fatal alert of TLS 1.2 before the server's ChangeCipherSpec: RFC 5246, 7.2.2, access_denied (49)."""


class HandshakeContext(ssl.SSLContext):
    """A server context whose handshakes end as `_Handshake` says.

    `admits` judges the client's certificate, which the context demands and verifies; None: nobody judges it.
    """

    admits: Callable[[PeerCertificate], bool] | None = None

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        """The TLS side of one connection."""
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        if isinstance(made, _Handshake):
            made.outgoing, made.admits = outgoing, self.admits
        return made


class _Handshake(ssl.SSLObject):
    """Of one connection. A failure is raised once the alert that OpenSSL has made for it is on its way."""

    outgoing: ssl.MemoryBIO
    admits: Callable[[PeerCertificate], bool] | None = None
    failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until it is done or refused, SSLError when it is refused."""
        if self.failure is not None:
            raise self.failure
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            self._refuse(error)
        if self.admits is not None and not self.admits(self.getpeercert() or {}):
            # What waits to be sent, our Finished in TLS 1.2 and session tickets in 1.3, would say that all is well.
            self.outgoing.read()
            if self.version() == "TLSv1.2" and not self.session_reused:
                self.outgoing.write(_ACCESS_DENIED)
            self._refuse(ssl.SSLCertVerificationError("the client certificate has another subject, or has expired"))

    def _refuse(self, error: ssl.SSLError) -> None:
        if not self.outgoing.pending:
            raise error
        # uvloop and asyncio send nothing after an error. Asked to wait for the client they send the alert; the
        # client goes away, or sends more and hears no more, or runs into the handshake's timeout.
        self.failure = error
        raise ssl.SSLWantReadError


HandshakeContext.sslobject_class = _Handshake
