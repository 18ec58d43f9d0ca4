"""Every change that there is."""

from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)
from holdfast.control.actions.rotation import ActivateGeneration, CheckRotation, PrepareRotation, RollBack

AnyAction = (
    PrepareRotation
    | CheckRotation
    | ActivateGeneration
    | RollBack
    | BlockKeystores
    | UnblockKeystores
    | CreateKeystore
    | ChangeKeystore
    | DeleteKeystore
)
"""By its tag, msgspec tells which one it reads."""
