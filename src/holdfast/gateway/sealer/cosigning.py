"""Shows each new checkpoint to a witness, and adds its cosignature."""

import urllib.error
import urllib.request
from http import HTTPStatus

from holdfast.audit.faults import AuditFault, Malformed
from holdfast.audit.keys import VerifierKey
from holdfast.audit.note import MAX_NOTE, decode_decimal
from holdfast.audit.tiles import Tiles
from holdfast.audit.witness import ask, take
from holdfast.store.log_directory import LogDirectory

_TIMEOUT = 5.0


class Cosigning:
    """One witness. It belongs to the thread that writes the log."""

    def __init__(self, url: str, key: VerifierKey) -> None:
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self._key = key
        self._seen = 0

    def show(self, log: LogDirectory) -> str | None:
        """Have the last checkpoint cosigned; why that is not possible, if it is not."""
        try:
            answer = self._ask(log)
            log.add_cosignatures(take(log.signed.note, answer, [self._key]))
        except (AuditFault, OSError, ValueError) as error:
            return f"the witness {self._key.name} does not cosign: {getattr(error, 'message', None) or error}"
        self._seen = log.signed.checkpoint.size
        return None

    def _ask(self, log: LogDirectory) -> bytes:
        """Raises what `show` tells. A witness that saw another size says which, and is asked again."""
        for again in (False, True):
            try:
                return self._post(log)
            except urllib.error.HTTPError as refusal:
                with refusal:
                    text = refusal.read(MAX_NOTE).decode(errors="replace").strip()
                if refusal.code != HTTPStatus.CONFLICT or again:
                    raise Malformed(f"{refusal.code}: {text}") from None
            self._seen = decode_decimal(text)
            if self._seen > log.signed.checkpoint.size:
                raise Malformed(
                    f"it saw {self._seen} entries of this log, which has {log.signed.checkpoint.size}: was an older"
                    " copy of its directory put back?"
                )
        raise AssertionError("the second attempt returns or raises")

    def _post(self, log: LogDirectory) -> bytes:
        body = ask(Tiles(log.read, log.signed.checkpoint.size), log.signed.note, old=self._seen)
        request = urllib.request.Request(self._url, data=body, method="POST")  # noqa: S310 (the configuration's URL)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 (as above)
            raw: bytes = answer.read(MAX_NOTE + 1)
        return raw
