"""The catalogue of checks, in the order in which they run."""

from holdfast.witness.check.checks import (
    authentication,
    cdiv,
    certificate,
    configuration,
    decrypt,
    encrypt,
    errors,
    health,
    latency,
    metadata,
    methods,
    reachability,
    requests,
    restricted_keys,
    tls,
)
from holdfast.witness.check.finding import Check

GROUPS = {
    "CONF": "Configuration file",
    "REACH": "Reachability",
    "TLS": "TLS",
    "CERT": "Certificate",
    "HEALTH": "Health",
    "HTTP": "HTTP methods and paths",
    "AUTH": "Authentication",
    "META": "GetKeyMetadata",
    "ENC": "Encrypt",
    "CDIV": "Ciphertext data integrity value",
    "DEC": "Decrypt",
    "REQ": "What every request may carry",
    "USE": "Keys of restricted use",
    "ERR": "Error responses",
    "LAT": "Latency",
}
"""Group prefixes and their titles."""

CATALOGUE: tuple[Check, ...] = (
    *configuration.CHECKS,
    *reachability.CHECKS,
    *tls.CHECKS,
    *certificate.CHECKS,
    *health.CHECKS,
    *methods.CHECKS,
    *authentication.CHECKS,
    *metadata.CHECKS,
    *encrypt.CHECKS,
    *cdiv.CHECKS,
    *decrypt.CHECKS,
    *requests.CHECKS,
    *restricted_keys.CHECKS,
    *errors.CHECKS,
    *latency.CHECKS,
)
