"""New proxy authentication credentials and PINs, from the operating system's random numbers."""

import base64
import secrets

from holdfast.xks.secret import Secret
from holdfast.xks.types import AccessKeyId, SecretAccessKey

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_ACCESS_KEY_ID_LENGTH = 24  # Of the spec's 20 to 30: 120 bits, so that two proxies never issue the same.
_SECRET_BYTES = 32  # Spec, Appendix A: at least 256 bits of entropy.
_PIN_BYTES = 18  # 24 characters of Base64: tokens commonly take PINs of 4 to 32 characters or more.


def new_access_key_id() -> AccessKeyId:
    """A random access key id."""
    return AccessKeyId.parse("".join(secrets.choice(_BASE32) for _ in range(_ACCESS_KEY_ID_LENGTH)))


def new_secret() -> SecretAccessKey:
    """A random secret access key of 256 bits, as 44 characters of Base64."""
    return SecretAccessKey(base64.b64encode(secrets.token_bytes(_SECRET_BYTES)))


def new_pin() -> Secret:
    """A random PIN of 24 characters: A-Z, a-z, 0-9, dash and underscore."""
    return Secret(base64.urlsafe_b64encode(secrets.token_bytes(_PIN_BYTES)))
