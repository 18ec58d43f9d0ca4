"""Every change that there is."""

from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)

AnyAction = BlockKeystores | UnblockKeystores | CreateKeystore | ChangeKeystore | DeleteKeystore
"""By its tag, msgspec tells which one it reads."""
