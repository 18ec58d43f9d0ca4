"""Whom a TLS client of Holdfast trusts: one answer for `prove`, `doctor`, `check` and the local KMS."""

import ssl
from pathlib import Path

from holdfast.reading import MOST_PEM, read_file

_OF_PYTHON_3_13 = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


def client_context(authority: Path | str | None) -> ssl.SSLContext:
    """A client's context that trusts the authorities in a PEM file; None: those of the system.

    Whether a chain is good does not depend on the Python that looks at it: the two flags that
    `ssl.create_default_context` sets since Python 3.13 are taken off. One refuses certificates without an
    authority key identifier, as many private authorities issue them; the other accepts an intermediate
    certificate as an anchor. Raises OSError for a file that cannot be read, ssl.SSLError for one without a
    certificate.
    """
    if authority is not None:
        read_file(authority, most=MOST_PEM)
    context = ssl.create_default_context(cafile=authority)  # noqa: TID251 (the one place that may)
    context.verify_flags &= ~_OF_PYTHON_3_13
    return context
