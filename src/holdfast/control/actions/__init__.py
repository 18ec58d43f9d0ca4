"""Every change that there is."""

from holdfast.control.actions.catalogs import AcceptEntries, ImportCatalog, RevertEntries
from holdfast.control.actions.credentials import IssueCredential, ReferenceCredential, RetireCredential
from holdfast.control.actions.descriptions import DescribeKey
from holdfast.control.actions.drills import RecordDrill
from holdfast.control.actions.generations import (
    CompromiseGeneration,
    ConfirmDestruction,
    KeepGeneration,
    PlanDestruction,
    ResumeGeneration,
    SuspendGeneration,
)
from holdfast.control.actions.keys import (
    BindKey,
    CreateKey,
    DisableKey,
    EnableKey,
    RegisterKey,
    ReleaseKey,
    UnregisterKey,
    UpgradeKeys,
)
from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)
from holdfast.control.actions.nodes import ForgetNode
from holdfast.control.actions.operators import EnrolOperator, RemoveOperator, SetRules
from holdfast.control.actions.pins import PinKey, UnpinKey
from holdfast.control.actions.rotation import ActivateGeneration, CheckRotation, PrepareRotation, RollBack

AnyAction = (
    PrepareRotation
    | CheckRotation
    | ActivateGeneration
    | RollBack
    | SuspendGeneration
    | ResumeGeneration
    | CompromiseGeneration
    | PlanDestruction
    | KeepGeneration
    | ConfirmDestruction
    | BlockKeystores
    | UnblockKeystores
    | CreateKeystore
    | ChangeKeystore
    | DeleteKeystore
    | CreateKey
    | RegisterKey
    | UnregisterKey
    | DisableKey
    | EnableKey
    | BindKey
    | ReleaseKey
    | UpgradeKeys
    | PinKey
    | UnpinKey
    | DescribeKey
    | RecordDrill
    | IssueCredential
    | ReferenceCredential
    | RetireCredential
    | ImportCatalog
    | ForgetNode
    | AcceptEntries
    | RevertEntries
    | EnrolOperator
    | RemoveOperator
    | SetRules
)
"""By its tag, msgspec tells which one it reads."""
