/*
 * The part of Cryptoki that the shim needs, written from the PKCS#11 2.40/3.0
 * standard text: types, the constants used here, and the table of the 68
 * functions of version 2.40.  Unix layout: no packing, CK_ULONG is a long.
 */
#ifndef HOLDFAST_SHIM_CRYPTOKI_H
#define HOLDFAST_SHIM_CRYPTOKI_H

typedef unsigned char CK_BYTE, CK_BBOOL, CK_UTF8CHAR, CK_CHAR;
typedef unsigned long CK_ULONG, CK_RV, CK_FLAGS, CK_STATE, CK_NOTIFICATION;
typedef CK_ULONG CK_SLOT_ID, CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_USER_TYPE;
typedef CK_ULONG CK_MECHANISM_TYPE, CK_ATTRIBUTE_TYPE, CK_OBJECT_CLASS;

#define CK_UNAVAILABLE_INFORMATION (~0UL)
#define CKF_RNG 0x00000001UL
#define CKF_TOKEN_PRESENT 0x00000001UL
#define CKF_HW_SLOT 0x00000004UL
#define CKF_TOKEN_INITIALIZED 0x00000400UL
#define CKF_RW_SESSION 0x00000002UL
#define CKF_SERIAL_SESSION 0x00000004UL
#define CKF_OS_LOCKING_OK 0x00000002UL
#define CKU_USER 1UL
#define CKS_RO_PUBLIC_SESSION 0UL
#define CKS_RO_USER_FUNCTIONS 1UL
#define CKS_RW_PUBLIC_SESSION 2UL
#define CKS_RW_USER_FUNCTIONS 3UL
#define CKO_SECRET_KEY 4UL
#define CKA_CLASS 0x000UL
#define CKA_TOKEN 0x001UL
#define CKA_PRIVATE 0x002UL
#define CKA_ID 0x102UL
#define CKA_WRAP 0x106UL
#define CKA_UNWRAP 0x107UL
#define CKA_SIGN 0x108UL
#define CKA_VERIFY 0x10AUL
#define CKA_LOCAL 0x163UL
#define CKA_KEY_GEN_MECHANISM 0x166UL
#define CKA_ALWAYS_AUTHENTICATE 0x202UL
#define CKM_AES_GCM 0x1087UL

#define CKR_OK 0x000UL
#define CKR_HOST_MEMORY 0x002UL
#define CKR_SLOT_ID_INVALID 0x003UL
#define CKR_GENERAL_ERROR 0x005UL
#define CKR_FUNCTION_FAILED 0x006UL
#define CKR_ARGUMENTS_BAD 0x007UL
#define CKR_ATTRIBUTE_TYPE_INVALID 0x012UL
#define CKR_DATA_LEN_RANGE 0x021UL
#define CKR_DEVICE_ERROR 0x030UL
#define CKR_ENCRYPTED_DATA_INVALID 0x040UL
#define CKR_ENCRYPTED_DATA_LEN_RANGE 0x041UL
#define CKR_FUNCTION_NOT_SUPPORTED 0x054UL
#define CKR_MECHANISM_INVALID 0x070UL
#define CKR_MECHANISM_PARAM_INVALID 0x071UL
#define CKR_PIN_INCORRECT 0x0A0UL
#define CKR_SESSION_COUNT 0x0B1UL
#define CKR_SESSION_HANDLE_INVALID 0x0B3UL
#define CKR_SESSION_READ_ONLY 0x0B5UL
#define CKR_TEMPLATE_INCONSISTENT 0x0D1UL
#define CKR_TOKEN_NOT_PRESENT 0x0E0UL
#define CKR_USER_ALREADY_LOGGED_IN 0x100UL
#define CKR_USER_NOT_LOGGED_IN 0x101UL
#define CKR_BUFFER_TOO_SMALL 0x150UL
#define CKR_CRYPTOKI_NOT_INITIALIZED 0x190UL

typedef struct { CK_BYTE major, minor; } CK_VERSION;
typedef struct {
    CK_VERSION cryptokiVersion;
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_UTF8CHAR libraryDescription[32];
    CK_VERSION libraryVersion;
} CK_INFO;
typedef struct {
    CK_UTF8CHAR slotDescription[64], manufacturerID[32];
    CK_FLAGS flags;
    CK_VERSION hardwareVersion, firmwareVersion;
} CK_SLOT_INFO;
typedef struct {
    CK_UTF8CHAR label[32], manufacturerID[32], model[16];
    CK_CHAR serialNumber[16];
    CK_FLAGS flags;
    CK_ULONG ulMaxSessionCount, ulSessionCount, ulMaxRwSessionCount, ulRwSessionCount;
    CK_ULONG ulMaxPinLen, ulMinPinLen;
    CK_ULONG ulTotalPublicMemory, ulFreePublicMemory, ulTotalPrivateMemory, ulFreePrivateMemory;
    CK_VERSION hardwareVersion, firmwareVersion;
    CK_CHAR utcTime[16];
} CK_TOKEN_INFO;
typedef struct {
    CK_SLOT_ID slotID;
    CK_STATE state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
} CK_SESSION_INFO;
typedef struct {
    CK_ATTRIBUTE_TYPE type;
    void *pValue;
    CK_ULONG ulValueLen;
} CK_ATTRIBUTE;
typedef struct {
    CK_MECHANISM_TYPE mechanism;
    void *pParameter;
    CK_ULONG ulParameterLen;
} CK_MECHANISM;
typedef struct { CK_ULONG ulMinKeySize, ulMaxKeySize; CK_FLAGS flags; } CK_MECHANISM_INFO;
typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen, ulIvBits;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen, ulTagBits;
} CK_GCM_PARAMS;
/* The five fields of the 2.40 prose, which some old modules still want. */
typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen, ulTagBits;
} CK_GCM_PARAMS_40;
typedef CK_RV (*CK_MUTEX_CALLBACK)(void *);
typedef CK_RV (*CK_CREATEMUTEX)(void **);
typedef struct {
    CK_CREATEMUTEX CreateMutex;
    CK_MUTEX_CALLBACK DestroyMutex, LockMutex, UnlockMutex;
    CK_FLAGS flags;
    void *pReserved;
} CK_C_INITIALIZE_ARGS;
typedef CK_RV (*CK_NOTIFY)(CK_SESSION_HANDLE, CK_NOTIFICATION, void *);
typedef struct CK_FUNCTION_LIST CK_FUNCTION_LIST;

/*
 * All functions of version 2.40 in table order, once.  FORWARD rows work on a
 * session and are passed on unchanged by a generated wrapper; CUSTOM rows have
 * a wrapper of their own.  Row numbers are the function numbers of the control
 * file (see control.py, FUNCTIONS).
 */
#define CKS CK_SESSION_HANDLE hSession
#define CKIN(p, n) CK_BYTE *p, CK_ULONG n
#define CKOUT(p, n) CK_BYTE *p, CK_ULONG *n
#define CRYPTOKI_FUNCTIONS(FORWARD, CUSTOM) \
    CUSTOM(C_Initialize, (void *pInitArgs)) \
    CUSTOM(C_Finalize, (void *pReserved)) \
    CUSTOM(C_GetInfo, (CK_INFO *pInfo)) \
    CUSTOM(C_GetFunctionList, (CK_FUNCTION_LIST **ppFunctionList)) \
    CUSTOM(C_GetSlotList, (CK_BBOOL tokenPresent, CK_SLOT_ID *pSlotList, CK_ULONG *pulCount)) \
    CUSTOM(C_GetSlotInfo, (CK_SLOT_ID slotID, CK_SLOT_INFO *pInfo)) \
    CUSTOM(C_GetTokenInfo, (CK_SLOT_ID slotID, CK_TOKEN_INFO *pInfo)) \
    CUSTOM(C_GetMechanismList, (CK_SLOT_ID slotID, CK_MECHANISM_TYPE *pList, CK_ULONG *pulCount)) \
    CUSTOM(C_GetMechanismInfo, (CK_SLOT_ID slotID, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *pInfo)) \
    CUSTOM(C_InitToken, (CK_SLOT_ID slotID, CKIN(pPin, ulPinLen), CK_UTF8CHAR *pLabel)) \
    FORWARD(C_InitPIN, (CKS, CKIN(pPin, ulPinLen)), (hSession, pPin, ulPinLen)) \
    FORWARD(C_SetPIN, (CKS, CKIN(pOld, ulOldLen), CKIN(pNew, ulNewLen)), \
            (hSession, pOld, ulOldLen, pNew, ulNewLen)) \
    CUSTOM(C_OpenSession, (CK_SLOT_ID slotID, CK_FLAGS flags, void *pApplication, CK_NOTIFY Notify, \
                           CK_SESSION_HANDLE *phSession)) \
    CUSTOM(C_CloseSession, (CKS)) \
    CUSTOM(C_CloseAllSessions, (CK_SLOT_ID slotID)) \
    CUSTOM(C_GetSessionInfo, (CKS, CK_SESSION_INFO *pInfo)) \
    FORWARD(C_GetOperationState, (CKS, CKOUT(pState, pulLen)), (hSession, pState, pulLen)) \
    FORWARD(C_SetOperationState, (CKS, CKIN(pState, ulLen), CK_OBJECT_HANDLE hEnc, CK_OBJECT_HANDLE hAuth), \
            (hSession, pState, ulLen, hEnc, hAuth)) \
    CUSTOM(C_Login, (CKS, CK_USER_TYPE userType, CKIN(pPin, ulPinLen))) \
    CUSTOM(C_Logout, (CKS)) \
    CUSTOM(C_CreateObject, (CKS, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount, CK_OBJECT_HANDLE *phObject)) \
    FORWARD(C_CopyObject, (CKS, CK_OBJECT_HANDLE hObject, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount, \
                           CK_OBJECT_HANDLE *phNew), (hSession, hObject, pTemplate, ulCount, phNew)) \
    FORWARD(C_DestroyObject, (CKS, CK_OBJECT_HANDLE hObject), (hSession, hObject)) \
    FORWARD(C_GetObjectSize, (CKS, CK_OBJECT_HANDLE hObject, CK_ULONG *pulSize), (hSession, hObject, pulSize)) \
    CUSTOM(C_GetAttributeValue, (CKS, CK_OBJECT_HANDLE hObject, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount)) \
    FORWARD(C_SetAttributeValue, (CKS, CK_OBJECT_HANDLE hObject, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount), \
            (hSession, hObject, pTemplate, ulCount)) \
    CUSTOM(C_FindObjectsInit, (CKS, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount)) \
    CUSTOM(C_FindObjects, (CKS, CK_OBJECT_HANDLE *phObject, CK_ULONG ulMax, CK_ULONG *pulCount)) \
    CUSTOM(C_FindObjectsFinal, (CKS)) \
    CUSTOM(C_EncryptInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey)) \
    CUSTOM(C_Encrypt, (CKS, CKIN(pData, ulDataLen), CKOUT(pOut, pulOutLen))) \
    CUSTOM(C_EncryptUpdate, (CKS, CKIN(pPart, ulPartLen), CKOUT(pOut, pulOutLen))) \
    FORWARD(C_EncryptFinal, (CKS, CKOUT(pLast, pulLastLen)), (hSession, pLast, pulLastLen)) \
    CUSTOM(C_DecryptInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey)) \
    CUSTOM(C_Decrypt, (CKS, CKIN(pData, ulDataLen), CKOUT(pOut, pulOutLen))) \
    CUSTOM(C_DecryptUpdate, (CKS, CKIN(pPart, ulPartLen), CKOUT(pOut, pulOutLen))) \
    FORWARD(C_DecryptFinal, (CKS, CKOUT(pLast, pulLastLen)), (hSession, pLast, pulLastLen)) \
    FORWARD(C_DigestInit, (CKS, CK_MECHANISM *pMechanism), (hSession, pMechanism)) \
    FORWARD(C_Digest, (CKS, CKIN(pData, ulLen), CKOUT(pOut, pulOut)), (hSession, pData, ulLen, pOut, pulOut)) \
    FORWARD(C_DigestUpdate, (CKS, CKIN(pPart, ulLen)), (hSession, pPart, ulLen)) \
    FORWARD(C_DigestKey, (CKS, CK_OBJECT_HANDLE hKey), (hSession, hKey)) \
    FORWARD(C_DigestFinal, (CKS, CKOUT(pOut, pulOut)), (hSession, pOut, pulOut)) \
    FORWARD(C_SignInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey), (hSession, pMechanism, hKey)) \
    FORWARD(C_Sign, (CKS, CKIN(pData, ulLen), CKOUT(pOut, pulOut)), (hSession, pData, ulLen, pOut, pulOut)) \
    FORWARD(C_SignUpdate, (CKS, CKIN(pPart, ulLen)), (hSession, pPart, ulLen)) \
    FORWARD(C_SignFinal, (CKS, CKOUT(pOut, pulOut)), (hSession, pOut, pulOut)) \
    FORWARD(C_SignRecoverInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey), \
            (hSession, pMechanism, hKey)) \
    FORWARD(C_SignRecover, (CKS, CKIN(pData, ulLen), CKOUT(pOut, pulOut)), (hSession, pData, ulLen, pOut, pulOut)) \
    FORWARD(C_VerifyInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey), (hSession, pMechanism, hKey)) \
    FORWARD(C_Verify, (CKS, CKIN(pData, ulLen), CKIN(pSig, ulSig)), (hSession, pData, ulLen, pSig, ulSig)) \
    FORWARD(C_VerifyUpdate, (CKS, CKIN(pPart, ulLen)), (hSession, pPart, ulLen)) \
    FORWARD(C_VerifyFinal, (CKS, CKIN(pSig, ulSig)), (hSession, pSig, ulSig)) \
    FORWARD(C_VerifyRecoverInit, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey), \
            (hSession, pMechanism, hKey)) \
    FORWARD(C_VerifyRecover, (CKS, CKIN(pSig, ulSig), CKOUT(pOut, pulOut)), (hSession, pSig, ulSig, pOut, pulOut)) \
    FORWARD(C_DigestEncryptUpdate, (CKS, CKIN(pPart, ulLen), CKOUT(pOut, pulOut)), \
            (hSession, pPart, ulLen, pOut, pulOut)) \
    FORWARD(C_DecryptDigestUpdate, (CKS, CKIN(pPart, ulLen), CKOUT(pOut, pulOut)), \
            (hSession, pPart, ulLen, pOut, pulOut)) \
    FORWARD(C_SignEncryptUpdate, (CKS, CKIN(pPart, ulLen), CKOUT(pOut, pulOut)), \
            (hSession, pPart, ulLen, pOut, pulOut)) \
    FORWARD(C_DecryptVerifyUpdate, (CKS, CKIN(pPart, ulLen), CKOUT(pOut, pulOut)), \
            (hSession, pPart, ulLen, pOut, pulOut)) \
    CUSTOM(C_GenerateKey, (CKS, CK_MECHANISM *pMechanism, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount, \
                           CK_OBJECT_HANDLE *phKey)) \
    FORWARD(C_GenerateKeyPair, (CKS, CK_MECHANISM *pMechanism, CK_ATTRIBUTE *pPublic, CK_ULONG ulPublic, \
                                CK_ATTRIBUTE *pPrivate, CK_ULONG ulPrivate, CK_OBJECT_HANDLE *phPublic, \
                                CK_OBJECT_HANDLE *phPrivate), \
            (hSession, pMechanism, pPublic, ulPublic, pPrivate, ulPrivate, phPublic, phPrivate)) \
    FORWARD(C_WrapKey, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hWrapping, CK_OBJECT_HANDLE hKey, \
                        CKOUT(pOut, pulOut)), (hSession, pMechanism, hWrapping, hKey, pOut, pulOut)) \
    FORWARD(C_UnwrapKey, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hUnwrapping, CKIN(pData, ulLen), \
                          CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount, CK_OBJECT_HANDLE *phKey), \
            (hSession, pMechanism, hUnwrapping, pData, ulLen, pTemplate, ulCount, phKey)) \
    FORWARD(C_DeriveKey, (CKS, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hBase, CK_ATTRIBUTE *pTemplate, \
                          CK_ULONG ulCount, CK_OBJECT_HANDLE *phKey), \
            (hSession, pMechanism, hBase, pTemplate, ulCount, phKey)) \
    FORWARD(C_SeedRandom, (CKS, CKIN(pSeed, ulLen)), (hSession, pSeed, ulLen)) \
    CUSTOM(C_GenerateRandom, (CKS, CKIN(pRandom, ulLen))) \
    FORWARD(C_GetFunctionStatus, (CKS), (hSession)) \
    FORWARD(C_CancelFunction, (CKS), (hSession)) \
    CUSTOM(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *pSlot, void *pReserved))

struct CK_FUNCTION_LIST {
    CK_VERSION version;
#define FORWARD_MEMBER(name, params, args) CK_RV (*name) params;
#define CUSTOM_MEMBER(name, params) CK_RV (*name) params;
    CRYPTOKI_FUNCTIONS(FORWARD_MEMBER, CUSTOM_MEMBER)
#undef FORWARD_MEMBER
#undef CUSTOM_MEMBER
};

#endif
