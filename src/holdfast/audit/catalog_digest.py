"""The digest of a catalog: a sum over its entries, so that the change of one entry does not read the others.

Each entry (a keystore, a credential, a key with its generations) is expanded to a number below 2^2048, by SHAKE-128,
and the digest is the sum of all modulo 2^2048: the additive hash of Bellare and Micciancio (AdHash, EUROCRYPT 1997).
To make other entries of the same sum is a generalized birthday problem. With 2^k entries of the attacker's choice it
costs about 2^(2048 / (1 + k)) steps (Wagner, CRYPTO 2002): 2^97 with a million entries, never less than 2^90. A sum
of SHA-256 values would cost 2^32. The digest proves nothing by itself. It stands in the records of changes, and so in
the audit log; what it is worth is what the log is worth.
"""

from collections.abc import Sequence
from hashlib import shake_128
from typing import Any

import msgspec

_BYTES = 256
_MODULUS = 1 << 8 * _BYTES


def encode(rows: Sequence[Sequence[Any]]) -> bytes:
    """The bytes of an entry: the values of its rows as JSON, without the NULLs that end a row.

    So a column that is added behind the others, and is NULL, changes no entry.
    """
    trimmed = [_trimmed(row) for row in rows]
    try:
        return msgspec.json.encode(trimmed)
    except UnicodeEncodeError:  # a text that is not UTF-8 in the database
        return msgspec.json.encode([[ascii(value) for value in row] for row in trimmed])


def element(kind: str, entry: bytes) -> int:
    """What an entry adds to the sum."""
    return int.from_bytes(shake_128(b"%b\n%b" % (kind.encode(), entry)).digest(_BYTES), "little")


def digest_of(total: int) -> str:
    """A sum of elements as records have it: 512 hexadecimal digits."""
    return f"{total % _MODULUS:0{2 * _BYTES}x}"


def _trimmed(row: Sequence[Any]) -> list[Any]:
    values = list(row)
    while values and values[-1] is None:
        values.pop()
    return values
