"""The types of PKCS#11 for cffi, written from the text of OASIS PKCS#11 2.40 and 3.1 (Unix: no packing)."""

from typing import Final

_TYPES: Final = """
typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef struct { CK_BYTE major, minor; } CK_VERSION;
typedef struct {
    CK_VERSION cryptokiVersion;
    CK_BYTE manufacturerID[32];
    CK_ULONG flags;
    CK_BYTE libraryDescription[32];
    CK_VERSION libraryVersion;
} CK_INFO;
typedef struct {
    CK_BYTE label[32], manufacturerID[32], model[16], serialNumber[16];
    CK_ULONG flags;
    CK_ULONG ulMaxSessionCount, ulSessionCount, ulMaxRwSessionCount, ulRwSessionCount;
    CK_ULONG ulMaxPinLen, ulMinPinLen;
    CK_ULONG ulTotalPublicMemory, ulFreePublicMemory, ulTotalPrivateMemory, ulFreePrivateMemory;
    CK_VERSION hardwareVersion, firmwareVersion;
    CK_BYTE utcTime[16];
} CK_TOKEN_INFO;
typedef struct { CK_ULONG slotID, state, flags, ulDeviceError; } CK_SESSION_INFO;
typedef struct { CK_ULONG type; void *pValue; CK_ULONG ulValueLen; } CK_ATTRIBUTE;
typedef struct { CK_ULONG mechanism; void *pParameter; CK_ULONG ulParameterLen; } CK_MECHANISM;
typedef struct { CK_ULONG ulMinKeySize, ulMaxKeySize, flags; } CK_MECHANISM_INFO;
typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen, ulIvBits;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen, ulTagBits;
} CK_GCM_PARAMS;
typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen, ulTagBits;
} CK_GCM_PARAMS_40;
typedef struct {
    void *CreateMutex, *DestroyMutex, *LockMutex, *UnlockMutex;
    CK_ULONG flags;
    void *pReserved;
    void *pBeyond; /* NSS reads its string from pReserved, and then expects one more field */
} CK_C_INITIALIZE_ARGS;
"""

_USED: Final = {
    "C_Initialize": "void *",
    "C_Finalize": "void *",
    "C_GetInfo": "CK_INFO *",
    "C_GetSlotList": "CK_BYTE, CK_ULONG *, CK_ULONG *",
    "C_GetTokenInfo": "CK_ULONG, CK_TOKEN_INFO *",
    "C_GetMechanismList": "CK_ULONG, CK_ULONG *, CK_ULONG *",
    "C_GetMechanismInfo": "CK_ULONG, CK_ULONG, CK_MECHANISM_INFO *",
    "C_OpenSession": "CK_ULONG, CK_ULONG, void *, void *, CK_ULONG *",
    "C_CloseSession": "CK_ULONG",
    "C_GetSessionInfo": "CK_ULONG, CK_SESSION_INFO *",
    "C_Login": "CK_ULONG, CK_ULONG, CK_BYTE *, CK_ULONG",
    "C_DestroyObject": "CK_ULONG, CK_ULONG",
    "C_GetAttributeValue": "CK_ULONG, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG",
    "C_FindObjectsInit": "CK_ULONG, CK_ATTRIBUTE *, CK_ULONG",
    "C_FindObjects": "CK_ULONG, CK_ULONG *, CK_ULONG, CK_ULONG *",
    "C_FindObjectsFinal": "CK_ULONG",
    "C_EncryptInit": "CK_ULONG, CK_MECHANISM *, CK_ULONG",
    "C_Encrypt": "CK_ULONG, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *",
    "C_DecryptInit": "CK_ULONG, CK_MECHANISM *, CK_ULONG",
    "C_Decrypt": "CK_ULONG, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *",
    "C_SignInit": "CK_ULONG, CK_MECHANISM *, CK_ULONG",
    "C_Sign": "CK_ULONG, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *",
    "C_GenerateKey": "CK_ULONG, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_ULONG *",
    "C_GenerateKeyPair": "CK_ULONG, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG, CK_ULONG *,"
    " CK_ULONG *",
    "C_GenerateRandom": "CK_ULONG, CK_BYTE *, CK_ULONG",
}
"""The functions that Holdfast calls, with their parameters; the others only hold their place in the table."""

FUNCTIONS: Final = tuple(_USED)

_TABLE: Final = """
C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList
C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo
C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize
C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt
C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest
C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey
C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom
"""
"""The order of CK_FUNCTION_LIST, version 2.40, up to the last function used."""


def _member(name: str) -> str:
    return f"CK_RV (*{name})({_USED[name]});" if name in _USED else f"void *{name};"


DECLARATIONS: Final = (
    _TYPES
    + "typedef struct { CK_VERSION version; "
    + " ".join(map(_member, _TABLE.split()))
    + " } CK_FUNCTION_LIST;\nCK_RV C_GetFunctionList(CK_FUNCTION_LIST **);\n"
)
