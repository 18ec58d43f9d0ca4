"""A key of an HSM that signs, held open by a process that signs now and then and in no hurry."""

from holdfast.hsm.faults import HsmFault, LoginRefused
from holdfast.hsm.pkcs11.inspect import Inspector, SigningKey
from holdfast.hsm.settings import HsmSettings


class HsmSigner:
    """Connects when it is used, and again after any fault. Belongs to one thread.

    A refused login is not tried again: tokens lock after a few.
    """

    def __init__(self, settings: HsmSettings, label: str) -> None:
        self._settings = settings
        self._label = label
        self._inspector: Inspector | None = None
        self._key: SigningKey
        self._refused: LoginRefused | None = None

    def public(self) -> bytes:
        """The DER of the SubjectPublicKeyInfo. Raises HsmFault."""
        self._connect()
        return self._key.public

    def sign(self, message: bytes) -> bytes:
        """R and s side by side, 64 bytes: ECDSA over the message's SHA-256. Raises HsmFault."""
        inspector = self._connect()
        try:
            return inspector.sign_p256(self._key, message)
        except HsmFault:
            self.close()
            raise

    def close(self) -> None:
        """Leave the HSM."""
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            inspector.__exit__(None, None, None)

    def _connect(self) -> Inspector:
        if self._refused is not None:
            raise self._refused
        if self._inspector is not None:
            return self._inspector
        inspector = Inspector(self._settings).__enter__()
        try:
            self._key = inspector.find_p256(self._label)
        except BaseException as error:
            inspector.__exit__(None, None, None)
            if isinstance(error, LoginRefused):
                self._refused = error
            raise
        self._inspector = inspector
        return inspector
