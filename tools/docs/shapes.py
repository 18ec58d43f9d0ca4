"""What `--json` prints: the fields of each command's document, for the reference. Tests compare them."""

_KEYSTORE = (
    "name",
    "xks_proxy_uri_path",
    "region",
    "blocked",
    "blocked_until",
    "keys",
    "live_credentials",
    "last_used_at",
    "created_at",
)
_CREDENTIAL = ("access_key_id", "keystore", "state", "secret_ref", "created_at", "last_used_at", "retired_at")
_KEY = (
    "keystore",
    "external_key_id",
    "status",
    "enabled_until",
    "generation",
    "state",
    "hsm",
    "label",
    "cka_id",
    "tag",
    "metadata_format",
    "takeover",
    "encryptions_at_most",
    "stopped",
    "has_canary",
    "token_serial",
    "created_at",
)
_BLOCK = ("name", "blocked", "changed")
_STATUS = ("keystore", "external_key_id", "status", "changed")

SHAPES = {
    "init --directory": (
        "object",
        ("configuration", "keystore", "external_key_id", "certificate_authority", "console_file"),
    ),
    "init --config": ("object", ("configuration", "catalog")),
    "keystore create": ("object", _KEYSTORE),
    "keystore list": ("array", _KEYSTORE),
    "keystore show": ("object", _KEYSTORE),
    "keystore set": ("object", _KEYSTORE),
    "catalog show": (
        "object",
        ("catalog", "version", "keystores", "keys", "live_credentials", "bad_rows", "doubt"),
    ),
    "keystore block": ("array", _BLOCK),
    "keystore unblock": ("array", _BLOCK),
    "credential issue": ("object", ("keystore", "access_key_id")),
    "credential issue --show-secret": ("object", ("keystore", "access_key_id", "secret_access_key")),
    "credential list": ("array", _CREDENTIAL),
    "credential retire": ("object", _CREDENTIAL),
    "key create": ("object", _KEY),
    "key register": ("object", _KEY),
    "key list": ("array", _KEY),
    "key show": ("object", (*_KEY, "generations")),
    "key rebind": ("object", _KEY),
    "key release": ("object", _KEY),
    "key disable": ("object", _STATUS),
    "key enable": ("object", _STATUS),
    "prove": ("object", ("endpoint", "encrypt_ms", "decrypt_ms")),
    "authorization test": ("object", ("decision", "policies", "detail")),
    "authorization replay": ("object", ("requests", "changes")),
    "doctor": ("object", ("worst", "findings")),
    "config check": ("object", ("worst", "findings")),
    "migrate aws-sample": ("object", ("configuration", "keystores", "not_taken_over")),
}
"""By command: `object` or `array` (of objects), and the fields in their order."""
