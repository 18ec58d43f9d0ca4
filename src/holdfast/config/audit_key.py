"""The key that signs an audit log's checkpoints: in an HSM, or for tests in a file."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from holdfast.audit.keys import Sign, SignatureType, VerifierKey, ecdsa_der
from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.hsm import resolve
from holdfast.config.model import Configuration
from holdfast.config.storage import Audit
from holdfast.hsm.pkcs11.signer import HsmSigner
from holdfast.reading import read_file


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A verifier key, and what signs with its private half. `signer` is what `close` leaves."""

    key: VerifierKey
    sign: Sign
    signer: HsmSigner | None = None

    def close(self) -> None:
        """Leave the HSM."""
        if self.signer is not None:
            self.signer.close()


def open_audit_key(configuration: Configuration, audit: Audit, *, name: str) -> AuditKey:
    """The key for the log called `name`. Raises HsmFault, and ConfigurationError for a PIN or key file."""
    if audit.key_file is not None:
        private = _read(audit.key_file)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return AuditKey(_ecdsa(name, public), partial(private.sign, signature_algorithm=ECDSA(SHA256())))
    signer = HsmSigner(resolve(configuration.signing_hsm(audit)), audit.key)
    return AuditKey(_ecdsa(name, signer.public()), lambda message: ecdsa_der(signer.sign(message)), signer)


def _ecdsa(name: str, public: bytes) -> VerifierKey:
    return VerifierKey(name, SignatureType.ECDSA, public)


def _read(path: Path) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_file(path), None)
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable(f"{path} is not a private key in PEM, without a passphrase") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _unusable(f"{path} is not a key on P-256")
    return key


def _unusable(text: str) -> ConfigurationError:
    return ConfigurationError("`key_file` in [audit]", (Problem(None, text),))
