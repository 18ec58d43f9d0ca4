"""What identifies an HSM key, and what its token said of it when it was looked at. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """An HSM key as it was found. None: the token does not have it, or nobody asked.

    `canary`: None also for a key that may not both encrypt and decrypt. `attributes`: the CKA_ booleans that the
    token showed, by name. `check_value`: the first 5 bytes of AES-CMAC over 16 zero bytes (decision 0025). `world`:
    the HKNSO of the nShield Security World, as the configuration says.
    """

    cka_id: bytes | None = None
    canary: bytes | None = None
    token_serial: str | None = None
    attributes: dict[str, bool] | None = None
    check_value: bytes | None = None
    world: str | None = None
