"""Logging in: the login is the token's, not the session's, and a refused PIN is never tried again."""

from threading import Lock
from typing import Final, NoReturn

from holdfast.hsm.faults import LoginRefused, NativeCall
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.ckr import Ckr, Verdict, verdict
from holdfast.hsm.pkcs11.constants import CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION
from holdfast.hsm.pkcs11.cryptoki import CkrError, Cryptoki, TokenInfo
from holdfast.hsm.pkcs11.profile import Profile
from holdfast.hsm.settings import LoginMode
from holdfast.xks.secret import Secret

_MAY_WORK_LATER: Final = (Verdict.DEVICE, Verdict.SESSION_GONE, Verdict.BUSY)
_NO_LOGIN: Final = (Ckr.FUNCTION_NOT_SUPPORTED, Ckr.USER_TYPE_INVALID)


class Login:
    """C_Login for one token. Holdfast never calls C_Logout: on nShield that removes the logical token for all."""

    def __init__(self, cryptoki: Cryptoki, profile: Profile, pin: Secret | None) -> None:
        self._cryptoki = cryptoki
        self._mode = profile.login
        self._pin = pin
        self._lock = Lock()
        self._refused: LoginRefused | None = None

    def wanted(self, token: TokenInfo) -> bool:
        """Whether this token is logged in to."""
        return self._mode is LoginMode.USER or (self._mode is LoginMode.AUTO and token.login_required)

    def log_in(self, session: int, token: TokenInfo) -> bool:
        """Log in unless the token is logged in to already, or needs no login; whether C_Login was called.

        Raises LoginRefused and CkrError.
        """
        if not self.wanted(token):
            return False
        with self._lock:
            # Until this process restarts: tokens lock after a few attempts.
            if self._refused is not None:
                raise LoginRefused(self._refused.message, cause=self._refused.cause)
            # Asking for the state costs less than a C_Login, and does not count as an attempt at a PIN.
            if self._cryptoki.session_state(session) not in (CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION):
                return False
            if self._pin is None:
                self._refuse('the token requires a login, and no PIN is configured: give its PIN, or login = "none"')
            try:
                self._cryptoki.login(session, self._pin)
            except CkrError as error:
                self._refuse_if_final(error)
                raise
            return True

    def _refuse_if_final(self, error: CkrError) -> None:
        found = verdict(error.function, error.ckr, ambiguous_bad_tag=frozenset())
        if found in _MAY_WORK_LATER or error.ckr in (Ckr.GENERAL_ERROR, Ckr.FUNCTION_FAILED):
            return
        no_login = 'Set login = "none" if this token has no login (an nShield accelerator slot).'
        remedy = no_login if error.ckr in _NO_LOGIN else ckr.advice(error.ckr)
        self._refuse(
            f"the token refused the login: {ckr.name(error.ckr)}. It is not tried again, so that the token does not "
            f"lock. {remedy}",
            NativeCall(error.function, error.ckr),
        )

    def _refuse(self, message: str, cause: NativeCall | None = None) -> NoReturn:
        self._refused = LoginRefused(message, cause=cause)
        raise LoginRefused(message, cause=cause)
