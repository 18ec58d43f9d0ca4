"""The roles of those who ask for changes and approve them."""

from enum import StrEnum


class Role(StrEnum):
    """What an operator is there for. What a role may do, the policies say (`authorization.py`)."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    STOPPER = "stopper"
    CUSTODIAN = "custodian"
    APPROVER = "approver"
    SCHEDULER = "scheduler"
    ADMINISTRATOR = "administrator"
