"""The key that signs this node's audit log: made in the HSM, or for tests in a file."""

import secrets
from contextlib import closing

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast.audit.keys import VerifierKey
from holdfast.config.audit_key import open_audit_key
from holdfast.config.hsm import resolve
from holdfast.config.model import Configuration
from holdfast.config.storage import Audit
from holdfast.control.errors import Invalid
from holdfast.control.files import create_file
from holdfast.control.keys import CKA_ID_BYTES
from holdfast.hsm.pkcs11.inspect import Inspector


def create_audit_key(configuration: Configuration) -> list[VerifierKey]:
    """Make the key that `[audit]` names; as `verifier_keys`. Raises HsmFault, ConfigurationError, OSError, Conflict.

    Raises Invalid where the configuration has no audit log.
    """
    audit = audit_of(configuration)
    if audit.key_file is not None:
        private = generate_private_key(SECP256R1())
        create_file(audit.key_file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    else:
        with Inspector(resolve(configuration.signing_hsm(audit))) as inspector:
            inspector.generate_p256(audit.key, secrets.token_bytes(CKA_ID_BYTES))
    return verifier_keys(configuration)


def verifier_keys(configuration: Configuration) -> list[VerifierKey]:
    """What auditors need: of the node's log, and of the control log where this host keeps it.

    Raises HsmFault, ConfigurationError; Invalid where there is no audit log.
    """
    audit = audit_of(configuration)
    with closing(open_audit_key(configuration, audit, name=audit.name)) as opened:
        key = opened.key
    names = [audit.name, *([] if audit.control_name is None else [audit.control_name])]
    return [VerifierKey(name, key.type, key.public) for name in names]


def audit_of(configuration: Configuration) -> Audit:
    """The configuration's table. Raises Invalid where it has none."""
    if configuration.audit is None:
        raise Invalid(
            f"{configuration.path} has no table [audit]: this node keeps no audit log",
            hint="Add one with `directory` and `name`; `holdfast config explain audit` shows its keys.",
        )
    return configuration.audit
