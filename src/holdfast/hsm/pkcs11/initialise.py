"""Makes a token: C_InitToken and C_InitPIN. For `holdfast init`, on SoftHSM; other HSMs have their own tools.

Through the binding and not with softhsm2-util, which takes PINs in argv, where every user of the host sees them.
"""

from collections.abc import Mapping
from typing import Any, Final

from holdfast.hsm.faults import ModuleFailed, NativeCall
from holdfast.hsm.pkcs11.ckr import Ckr
from holdfast.hsm.pkcs11.cryptoki import CkrError, Cryptoki, ffi
from holdfast.xks.secret import Secret

_CKU_SO: Final = 0
_LABEL_BYTES: Final = 32
_INIT_TOKEN: Final = "CK_RV (*)(CK_ULONG, CK_BYTE *, CK_ULONG, CK_BYTE *)"  # noqa: S105 (a C type)
_INIT_PIN: Final = "CK_RV (*)(CK_ULONG, CK_BYTE *, CK_ULONG)"


def initialise_token(
    library: str, environment: Mapping[str, str], *, label: str, so_pin: Secret, pin: Secret
) -> None:
    """Makes a token in the library's first slot that has none, and sets its user PIN. Raises ModuleFailed.

    The module must not be in use by this process: it is initialised here, and finalized again.
    """
    module = Cryptoki(library, environment)
    table = ffi.new("CK_FUNCTION_LIST **")
    _check("C_GetFunctionList", ffi.dlopen(library).C_GetFunctionList(table))
    try:
        module.initialize()
        try:
            slot = next(slot for slot in module.slots() if not module.token_info(slot).initialized)
            padded = label.encode().ljust(_LABEL_BYTES)
            init_token = ffi.cast(_INIT_TOKEN, table[0].C_InitToken)
            _check("C_InitToken", init_token(slot, so_pin.reveal(), len(so_pin.reveal()), padded))
            # SoftHSM gives the new token another slot.
            slot = next(slot for slot in module.slots() if module.token_info(slot).label == label)
            _set_user_pin(module, table[0], slot, so_pin=so_pin, pin=pin)
        finally:
            module.finalize()
    except StopIteration:
        raise ModuleFailed(f"{library} offers no slot for a new token") from None
    except CkrError as error:
        raise ModuleFailed(
            f"the token {label!r} could not be made: {error}", cause=NativeCall(error.function, error.ckr)
        ) from None


def _set_user_pin(module: Cryptoki, table: Any, slot: int, *, so_pin: Secret, pin: Secret) -> None:
    session = module.open_session(slot, read_write=True)
    try:
        _check("C_Login", module.C_Login(session, _CKU_SO, so_pin.reveal(), len(so_pin.reveal())))
        init_pin = ffi.cast(_INIT_PIN, table.C_InitPIN)
        _check("C_InitPIN", init_pin(session, pin.reveal(), len(pin.reveal())))
    finally:
        module.close_session(session)


def _check(function: str, value: int) -> None:
    if value != Ckr.OK:
        raise CkrError(function, value)
