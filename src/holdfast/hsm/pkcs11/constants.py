"""The numbers of PKCS#11 that this binding uses. Source: OASIS PKCS#11 3.1, pkcs11t.h."""

from typing import Final

UNAVAILABLE_INFORMATION: Final = 0xFFFFFFFFFFFFFFFF

CKF_LOGIN_REQUIRED: Final = 0x4
CKF_TOKEN_INITIALIZED: Final = 0x400
CKF_RW_SESSION: Final = 0x2
CKF_SERIAL_SESSION: Final = 0x4
CKF_OS_LOCKING_OK: Final = 0x2
CKF_ENCRYPT: Final = 0x100
CKF_DECRYPT: Final = 0x200

CKU_USER: Final = 1
CKS_RO_PUBLIC_SESSION: Final = 0
CKS_RW_PUBLIC_SESSION: Final = 2
CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
CKO_SECRET_KEY: Final = 4

CKM_EC_KEY_PAIR_GEN: Final = 0x1040
CKM_ECDSA: Final = 0x1041
CKM_AES_KEY_GEN: Final = 0x1080
CKM_AES_GCM: Final = 0x1087
CKM_NAMES: Final = {
    0x0000: "CKM_RSA_PKCS_KEY_PAIR_GEN",
    0x0009: "CKM_RSA_PKCS_OAEP",
    0x0350: "CKM_GENERIC_SECRET_KEY_GEN",
    0x0251: "CKM_SHA256_HMAC",
    0x1040: "CKM_EC_KEY_PAIR_GEN",
    0x1041: "CKM_ECDSA",
    0x1080: "CKM_AES_KEY_GEN",
    0x1081: "CKM_AES_ECB",
    0x1082: "CKM_AES_CBC",
    0x1085: "CKM_AES_CBC_PAD",
    0x1086: "CKM_AES_CTR",
    0x1087: "CKM_AES_GCM",
    0x1088: "CKM_AES_CCM",
    0x108A: "CKM_AES_CMAC",
    0x2109: "CKM_AES_KEY_WRAP",
    0x210A: "CKM_AES_KEY_WRAP_PAD",
    0x210B: "CKM_AES_KEY_WRAP_KWP",
}

CKA_CLASS: Final = 0x000
CKA_TOKEN: Final = 0x001
CKA_PRIVATE: Final = 0x002
CKA_LABEL: Final = 0x003
CKA_KEY_TYPE: Final = 0x100
CKA_ID: Final = 0x102
CKA_SENSITIVE: Final = 0x103
CKA_ENCRYPT: Final = 0x104
CKA_DECRYPT: Final = 0x105
CKA_WRAP: Final = 0x106
CKA_UNWRAP: Final = 0x107
CKA_SIGN: Final = 0x108
CKA_VERIFY: Final = 0x10A
CKA_DERIVE: Final = 0x10C
CKA_VALUE_LEN: Final = 0x161
CKA_EXTRACTABLE: Final = 0x162
CKA_EC_PARAMS: Final = 0x180
CKA_EC_POINT: Final = 0x181

CKK_EC: Final = 0x03
CKK_AES: Final = 0x1F
CKK_NAMES: Final = {
    0x10: "GENERIC_SECRET",
    0x13: "DES",
    0x14: "DES2",
    0x15: "DES3",
    0x1F: "AES",
    0x20: "BLOWFISH",
    0x25: "CAMELLIA",
    0x2B: "SHA256_HMAC",
    0x2C: "SHA384_HMAC",
    0x2D: "SHA512_HMAC",
    0x33: "CHACHA20",
}

USAGES: Final = {
    "ENCRYPT": CKA_ENCRYPT,
    "DECRYPT": CKA_DECRYPT,
    "SIGN": CKA_SIGN,
    "VERIFY": CKA_VERIFY,
    "WRAP": CKA_WRAP,
    "UNWRAP": CKA_UNWRAP,
    "DERIVE": CKA_DERIVE,
}
"""XKS `keyUsage` words, in the order in which GetKeyMetadata lists them."""

BOOLEANS: Final = {
    "CKA_TOKEN": CKA_TOKEN,
    "CKA_PRIVATE": CKA_PRIVATE,
    "CKA_SENSITIVE": CKA_SENSITIVE,
    "CKA_EXTRACTABLE": CKA_EXTRACTABLE,
    "CKA_ALWAYS_SENSITIVE": 0x165,
    "CKA_NEVER_EXTRACTABLE": 0x164,
    "CKA_LOCAL": 0x163,
    "CKA_MODIFIABLE": 0x170,
    **{f"CKA_{word}": attribute for word, attribute in USAGES.items()},
}
"""The boolean attributes that `holdfast doctor` shows."""
