"""What the sessions of one HSM share: the module, the token, the login, the handles, the IV guard."""

from threading import Lock
from time import monotonic

from holdfast.hsm.faults import HsmFault, HsmUnavailable, IvUnsafe, KeyUsageRefused
from holdfast.hsm.pkcs11.cryptoki import CkrError, TokenInfo
from holdfast.hsm.pkcs11.gcm import GcmChannel
from holdfast.hsm.pkcs11.handles import Handles, find_one
from holdfast.hsm.pkcs11.iv import IvGuard, IvOutcome
from holdfast.hsm.pkcs11.iv_probe import probe_iv
from holdfast.hsm.pkcs11.login import Login
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.profile import Profile
from holdfast.hsm.pkcs11.token import choose_token, require_gcm
from holdfast.hsm.port import CanaryKeeper, KeyLocator, Sealed
from holdfast.hsm.settings import HsmSettings


class Connection:
    """A token in a module. Methods block; they raise CkrError and HsmFault.

    `session_round` grows when every session must be opened again. `health_canary` was sealed under the health key
    when the IV was probed. `proven_since` is when the last probe that succeeded began (monotonic seconds).
    `canaries` keeps those of keys that were registered without one; None: none are made.

    `guard` looks at the IVs of requests, `probe_guard` at those of probes: a key that a request has stopped stays
    stopped, while each probe starts afresh. The anchor session stays open: a token whose last session closes logs
    out, and SoftHSM's last close races with another thread's open (SoftHSM #464).
    """

    def __init__(
        self,
        module: Module,
        settings: HsmSettings,
        profile: Profile,
        guard: IvGuard,
        canaries: CanaryKeeper | None = None,
    ) -> None:
        self.module = module
        self.cryptoki = module.cryptoki
        self.profile = profile
        self.handles = Handles()
        self.guard = guard
        self.probe_guard = IvGuard()
        self.health_key = KeyLocator(settings.health_key)
        self.allow_extractable = settings.allow_extractable
        self.canaries = canaries
        self.proven_since = monotonic()
        self.session_round = 0
        self.health_canary: Sealed | None = None
        self.token: TokenInfo | None = None
        self._settings = settings
        self._login = Login(module.cryptoki, profile, settings.pin)
        self._anchor: tuple[int, int] | None = None
        self._connect_lock = Lock()
        self._connected_epoch: int | None = None
        self._last_epoch: int | None = None

    def invalidate(self) -> None:
        """Every session is void, and the next `ensure` connects again."""
        self._connected_epoch = None
        self.session_round += 1

    def renew_sessions(self) -> None:
        """Every session is opened again before its next use; token, login and handles stay."""
        self.session_round += 1

    def ensure(self) -> None:
        """Find the token, check the mechanism, log in, open the anchor session, probe the IV.

        Once, until `invalidate` or the module's next C_Initialize.
        """
        if self._connected_epoch == self.module.epoch:
            return
        with self._connect_lock:
            if self._connected_epoch != self.module.epoch:
                self._connect()

    def _connect(self) -> None:
        # No session opens before the probe has passed: nothing may encrypt with an IV that was not looked at.
        self._connected_epoch = None
        epoch = self.module.epoch
        self.handles.clear(new_epoch=epoch != self._last_epoch)
        self._last_epoch = epoch
        token = choose_token(self.cryptoki, self._settings.token)
        require_gcm(self.cryptoki, token.slot, self.profile)
        self.token = token
        self._drop_anchor()
        anchor = self.open_session()
        self._anchor = (epoch, anchor)
        self._probe_iv(anchor)
        self.session_round += 1
        self._connected_epoch = epoch

    def _probe_iv(self, session: int) -> None:
        version = self.handles.version
        found = find_one(self.cryptoki, session, self.health_key)
        if found.unread:
            raise HsmUnavailable(
                f"the token does not show {' and '.join(found.unread)} of the health key {self.health_key.label!r}"
            )
        if not (found.encrypts and found.decrypts and found.is_aes_256):
            raise KeyUsageRefused(
                f"the health key {self.health_key.label!r} is {found.attributes.key_spec} and permits "
                f"{', '.join(found.attributes.key_usage) or 'nothing'}: it must be AES_256 with ENCRYPT and DECRYPT"
            )
        probe = probe_iv(GcmChannel(self.cryptoki, session, self.profile), found.handle, self.profile)
        if probe.outcome is not IvOutcome.SAFE:
            raise IvUnsafe(f"this HSM is not served: {probe.sentence}. `holdfast doctor` tries the other settings")
        self.health_canary = probe.sealed
        found.confirmed.add(None)
        self.handles.keep(self.health_key, found, version)

    def open_session(self) -> int:
        """A new session's handle, logged in as the settings say. Raises LoginRefused, always once refused."""
        assert self.token is not None  # noqa: S101 (`_connect` has set it)
        session = self.cryptoki.open_session(self.token.slot, read_write=self.profile.read_write_sessions)
        try:
            if self._login.log_in(session, self.token):
                # The old login had ended, and with it every handle of a private key: a number may be another's now.
                self.handles.clear()
        except (CkrError, HsmFault):
            self.close_session(session, self.module.epoch)
            raise
        return session

    def close_session(self, session: int, epoch: int) -> None:
        """Close, whatever the module says. A handle of an older epoch may be another session's now: left alone."""
        if epoch == self.module.epoch:
            try:
                self.cryptoki.close_session(session)
            except CkrError:
                return  # gone already, or the device is: nothing is left to close

    def keep_anchor(self) -> None:
        """Open the anchor session again if it is gone: pulling the last card closes every session (nShield)."""
        with self._connect_lock:
            if self._connected_epoch != self.module.epoch or self._anchor is None:
                return
            try:
                self.cryptoki.session_state(self._anchor[1])
            except CkrError:
                self._anchor = (self.module.epoch, self.open_session())

    def disconnect(self) -> None:
        """Close the anchor session; the library need not spare this HSM."""
        self.module.forget_hsm(self)
        self._drop_anchor()

    def _drop_anchor(self) -> None:
        if self._anchor is not None:
            epoch, session = self._anchor
            self._anchor = None
            self.close_session(session, epoch)
