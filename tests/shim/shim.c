/*
 * A PKCS#11 library for tests: SoftHSM behind the manners of other modules,
 * with faults on demand.  This file is the dispatch: one wrapper per function,
 * the guards against misuse, and the calls that open and close things.
 *
 * The personalities are derived from public documents, logs and source code:
 * *emulated, not verified on hardware*.  A test that passes here shows that
 * Holdfast handles the documented behaviour, not that a device behaves so.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

struct settings settings;
CK_FUNCTION_LIST *real;
static pthread_once_t load_once = PTHREAD_ONCE_INIT;
static _Atomic bool initialized, single_threaded, forked_after_initialize;
static _Atomic uint32_t inside;

/* Any function but C_Initialize and C_Finalize runs between enter and leave. */
struct call {
    enum function function;
    struct session *session;
};

void shim_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("holdfast shim: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

const char *shim_environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* ---- loading ------------------------------------------------------------------------------------ */

static void note_fork(void)
{
    if (atomic_load(&initialized))
        atomic_store(&forked_after_initialize, true);
}

static void load(void)
{
    const char *path = shim_environment("HOLDFAST_SHIM_MODULE");
    void *library = dlopen(path != NULL ? path : "/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        shim_die("cannot load the module behind the shim: %s", dlerror());
    CK_RV (*get_function_list)(CK_FUNCTION_LIST **);
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (get_function_list == NULL || get_function_list(&real) != CKR_OK)
        shim_die("the module behind the shim has no C_GetFunctionList");
    pthread_atfork(NULL, NULL, note_fork);
    control_attach();
}

static bool is_set(const char *name)
{
    const char *value = shim_environment(name);
    return value != NULL && strcmp(value, "0") != 0;
}

static void read_settings(void)
{
    static const char *const NAMES[] = {"plain",       "nshield",    "luna",          "cloudhsm",
                                        "silent-zero", "nss-strict", "legacy-40-byte"};
    const char *name = shim_environment("HOLDFAST_SHIM_PERSONALITY");
    settings = (struct settings){PLAIN, is_set("HOLDFAST_SHIM_IV_LATE"), is_set("HOLDFAST_SHIM_REFUSE_NULL_IV"),
                                 is_set("HOLDFAST_SHIM_NO_GCM")};
    if (name == NULL)
        return;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (strcmp(name, NAMES[i]) == 0) {
            settings.personality = (enum personality)i;
            return;
        }
    shim_die("unknown HOLDFAST_SHIM_PERSONALITY %s", name);
}

/* ---- entering and leaving --------------------------------------------------------------------------- */

static void raise_high(_Atomic uint32_t *high, uint32_t value)
{
    uint32_t seen = atomic_load_explicit(high, memory_order_relaxed);
    while (seen < value && !atomic_compare_exchange_weak(high, &seen, value))
        ;
}

static void count_in(enum function function)
{
    static const char *const NAMES[] = {
#define FORWARD_NAME(name, params, args) #name,
#define CUSTOM_NAME(name, params) #name,
        CRYPTOKI_FUNCTIONS(FORWARD_NAME, CUSTOM_NAME)};
    if (atomic_load_explicit(&forked_after_initialize, memory_order_relaxed))
        shim_die("%s was called in a child forked after C_Initialize", NAMES[function]);
    uint32_t others = atomic_fetch_add(&inside, 1);
    if (others > 0 && atomic_load_explicit(&single_threaded, memory_order_relaxed))
        shim_die("%s was entered by a second thread after C_Initialize without CKF_OS_LOCKING_OK", NAMES[function]);
    atomic_fetch_add_explicit(&control->calls[function], 1, memory_order_relaxed);
    raise_high(&control->inside_high, atomic_fetch_add_explicit(&control->inside, 1, memory_order_relaxed) + 1);
}

static CK_RV count_out(CK_RV rv)
{
    atomic_fetch_sub_explicit(&control->inside, 1, memory_order_relaxed);
    atomic_fetch_sub(&inside, 1);
    return rv;
}

static CK_RV enter(enum function function)
{
    count_in(function);
    CK_RV rv = faults_apply(function);
    if (rv == CKR_OK && !atomic_load(&initialized))
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    return rv;
}

/* Finds the session before the faults, so that a call that hangs keeps its session from being reused. */
static CK_RV enter_session(struct call *call, enum function function, CK_SESSION_HANDLE *handle)
{
    count_in(function);
    *call = (struct call){.function = function};
    if (!atomic_load(&initialized)) {
        CK_RV rv = faults_apply(function);
        return rv != CKR_OK ? rv : CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    call->session = session_acquire(*handle);
    CK_RV rv = faults_apply(function);
    if (rv == CKR_OK)
        rv = faults_device(call->session != NULL ? call->session->slot : NO_SLOT);
    sessions_follow_epoch();
    if (rv == CKR_OK && (call->session == NULL || session_is_stale(call->session)))
        rv = CKR_SESSION_HANDLE_INVALID;
    if (call->session != NULL)
        *handle = call->session->real;
    return rv;
}

static CK_RV leave(struct call *call, CK_RV rv)
{
    if (call->session == NULL)
        return count_out(rv);
    /* The device went away while the call was in it. */
    if (rv == CKR_OK && session_is_stale(call->session) && call->function != FN_C_CloseSession)
        rv = CKR_SESSION_HANDLE_INVALID;
    session_release(call->session);
    return count_out(rv);
}

#define FORWARD_WRAPPER(name, params, args) \
    static CK_RV shim_##name params \
    { \
        struct call call; \
        CK_RV rv = enter_session(&call, FN_##name, &hSession); \
        return leave(&call, rv != CKR_OK ? rv : real->name args); \
    }
#define NO_WRAPPER(name, params)
CRYPTOKI_FUNCTIONS(FORWARD_WRAPPER, NO_WRAPPER)

/* ---- the library -------------------------------------------------------------------------------------- */

static CK_RV shim_C_Initialize(void *pInitArgs)
{
    count_in(FN_C_Initialize);
    CK_RV rv = faults_apply(FN_C_Initialize);
    if (rv != CKR_OK)
        return count_out(rv);
    read_settings();
    rv = real->C_Initialize(pInitArgs);
    if (rv != CKR_OK)
        return count_out(rv);
    if (settings.personality == NSHIELD && (rv = nshield_initialize()) != CKR_OK) {
        real->C_Finalize(NULL);
        return count_out(rv);
    }
    const CK_C_INITIALIZE_ARGS *arguments = pInitArgs;
    atomic_store(&single_threaded, arguments == NULL || ((arguments->flags & CKF_OS_LOCKING_OK) == 0 &&
                                                         arguments->LockMutex == NULL));
    faults_initialized();
    atomic_store(&initialized, true);
    return count_out(CKR_OK);
}

static CK_RV shim_C_Finalize(void *pReserved)
{
    count_in(FN_C_Finalize);
    CK_RV failure = faults_apply(FN_C_Finalize);
    if (!atomic_load(&initialized))
        return count_out(failure != CKR_OK ? failure : CKR_CRYPTOKI_NOT_INITIALIZED);
    if (atomic_load(&inside) > 1)
        atomic_fetch_add(&control->finalized_while_inside, 1);
    /* An injected failure is only reported: a library that fails here has still let go. */
    atomic_store(&initialized, false);
    sessions_finalized();
    CK_RV rv = real->C_Finalize(pReserved);
    if (settings.personality == NSHIELD)
        nshield_finalize();
    atomic_store(&single_threaded, false);
    return count_out(failure != CKR_OK ? failure : rv);
}

static CK_RV shim_C_GetInfo(CK_INFO *pInfo)
{
    CK_RV rv = enter(FN_C_GetInfo);
    if (rv == CKR_OK)
        rv = real->C_GetInfo(pInfo);
    if (rv == CKR_OK && settings.personality == NSHIELD)
        nshield_describe_library(pInfo);
    return count_out(rv);
}

static CK_RV shim_C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *pSlot, void *pReserved)
{
    CK_RV rv = enter(FN_C_WaitForSlotEvent);
    return count_out(rv != CKR_OK ? rv : real->C_WaitForSlotEvent(flags, pSlot, pReserved));
}

/* ---- slots ------------------------------------------------------------------------------------------------ */

static CK_RV to_real_slot(CK_SLOT_ID *slot)
{
    return settings.personality == NSHIELD ? nshield_real_slot(*slot, slot) : CKR_OK;
}

static CK_RV shim_C_GetSlotList(CK_BBOOL tokenPresent, CK_SLOT_ID *pSlotList, CK_ULONG *pulCount)
{
    CK_RV rv = enter(FN_C_GetSlotList);
    if (rv != CKR_OK)
        return count_out(rv);
    return count_out(settings.personality == NSHIELD ? nshield_slot_list(tokenPresent, pSlotList, pulCount)
                                                     : real->C_GetSlotList(tokenPresent, pSlotList, pulCount));
}

static CK_RV shim_C_GetSlotInfo(CK_SLOT_ID slotID, CK_SLOT_INFO *pInfo)
{
    CK_RV rv = enter(FN_C_GetSlotInfo);
    if (rv != CKR_OK)
        return count_out(rv);
    return count_out(settings.personality == NSHIELD ? nshield_slot_info(slotID, pInfo)
                                                     : real->C_GetSlotInfo(slotID, pInfo));
}

static CK_RV shim_C_GetTokenInfo(CK_SLOT_ID slotID, CK_TOKEN_INFO *pInfo)
{
    CK_RV rv = enter(FN_C_GetTokenInfo);
    if (rv != CKR_OK)
        return count_out(rv);
    return count_out(settings.personality == NSHIELD ? nshield_token_info(slotID, pInfo)
                                                     : real->C_GetTokenInfo(slotID, pInfo));
}

/* SoftHSM's list without AES-GCM, under the usual rules for a list of unknown length. */
static CK_RV list_without_gcm(CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count)
{
    CK_MECHANISM_TYPE all[512];
    CK_ULONG total = sizeof all / sizeof all[0], room = *count, kept = 0;
    CK_RV rv = real->C_GetMechanismList(slot, all, &total);
    if (rv != CKR_OK)
        return rv;
    for (CK_ULONG i = 0; i < total; i++)
        if (all[i] != CKM_AES_GCM)
            all[kept++] = all[i];
    *count = kept;
    if (list != NULL && room < kept)
        return CKR_BUFFER_TOO_SMALL;
    if (list != NULL)
        memcpy(list, all, kept * sizeof all[0]);
    return CKR_OK;
}

static CK_RV shim_C_GetMechanismList(CK_SLOT_ID slotID, CK_MECHANISM_TYPE *pList, CK_ULONG *pulCount)
{
    CK_RV rv = enter(FN_C_GetMechanismList);
    if (rv == CKR_OK)
        rv = to_real_slot(&slotID);
    if (rv != CKR_OK)
        return count_out(rv);
    return count_out(settings.no_gcm && pulCount != NULL ? list_without_gcm(slotID, pList, pulCount)
                                                         : real->C_GetMechanismList(slotID, pList, pulCount));
}

static CK_RV shim_C_GetMechanismInfo(CK_SLOT_ID slotID, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *pInfo)
{
    CK_RV rv = enter(FN_C_GetMechanismInfo);
    if (rv == CKR_OK)
        rv = to_real_slot(&slotID);
    if (rv == CKR_OK && settings.no_gcm && type == CKM_AES_GCM)
        rv = CKR_MECHANISM_INVALID;
    return count_out(rv != CKR_OK ? rv : real->C_GetMechanismInfo(slotID, type, pInfo));
}

static CK_RV shim_C_InitToken(CK_SLOT_ID slotID, CK_BYTE *pPin, CK_ULONG ulPinLen, CK_UTF8CHAR *pLabel)
{
    CK_RV rv = enter(FN_C_InitToken);
    if (rv == CKR_OK)
        rv = to_real_slot(&slotID);
    return count_out(rv != CKR_OK ? rv : real->C_InitToken(slotID, pPin, ulPinLen, pLabel));
}

/* ---- sessions ----------------------------------------------------------------------------------------------- */

static CK_RV shim_C_OpenSession(CK_SLOT_ID slotID, CK_FLAGS flags, void *pApplication, CK_NOTIFY Notify,
                                CK_SESSION_HANDLE *phSession)
{
    CK_SLOT_ID real_slot = slotID;
    CK_SESSION_HANDLE real_handle;
    CK_RV rv = enter(FN_C_OpenSession);
    if (rv == CKR_OK)
        rv = faults_device(slotID);
    if (rv != CKR_OK)
        return count_out(rv);
    sessions_follow_epoch();
    if (session_limit_reached())
        return count_out(CKR_SESSION_COUNT);
    /* SDK 5 has no read-only sessions; the code is chosen, none is documented. */
    if (settings.personality == CLOUDHSM && (flags & CKF_RW_SESSION) == 0)
        return count_out(CKR_SESSION_READ_ONLY);
    rv = to_real_slot(&real_slot);
    if (rv == CKR_OK)
        rv = phSession != NULL ? real->C_OpenSession(real_slot, flags, pApplication, Notify, &real_handle)
                               : CKR_ARGUMENTS_BAD;
    if (rv == CKR_OK)
        rv = session_add(slotID, settings.personality == NSHIELD ? nshield_slot(slotID) : NULL, real_handle,
                         phSession);
    return count_out(rv);
}

static CK_RV shim_C_CloseSession(CK_SESSION_HANDLE hSession)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_CloseSession, &hSession);
    if (rv == CKR_OK)
        session_retire(call.session);
    return leave(&call, rv);
}

static CK_RV shim_C_CloseAllSessions(CK_SLOT_ID slotID)
{
    CK_RV rv = enter(FN_C_CloseAllSessions);
    if (rv == CKR_OK)
        rv = faults_device(slotID);
    if (rv != CKR_OK)
        return count_out(rv);
    sessions_follow_epoch();
    sessions_retire_slot(slotID);
    /* The emulated slots share SoftHSM's with the session that holds the login behind the scenes. */
    if (settings.personality == NSHIELD)
        return count_out(nshield_slot(slotID) != NULL ? CKR_OK : CKR_SLOT_ID_INVALID);
    return count_out(real->C_CloseAllSessions(slotID));
}

static CK_RV shim_C_GetSessionInfo(CK_SESSION_HANDLE hSession, CK_SESSION_INFO *pInfo)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_GetSessionInfo, &hSession);
    if (rv == CKR_OK)
        rv = settings.personality == NSHIELD && pInfo != NULL ? nshield_session_info(call.session, pInfo)
                                                              : real->C_GetSessionInfo(hSession, pInfo);
    return leave(&call, rv);
}

static CK_RV shim_C_Login(CK_SESSION_HANDLE hSession, CK_USER_TYPE userType, CK_BYTE *pPin, CK_ULONG ulPinLen)
{
    struct call call;
    CK_RV failure = enter_session(&call, FN_C_Login, &hSession);
    /* "Already logged in" stands for the race with another thread, after which one is logged in. */
    bool lost_race = failure == CKR_USER_ALREADY_LOGGED_IN && call.session != NULL;
    if (failure != CKR_OK && !lost_race)
        return leave(&call, failure);
    CK_RV rv = settings.personality == NSHIELD ? nshield_login(call.session, userType, pPin, ulPinLen)
                                               : real->C_Login(hSession, userType, pPin, ulPinLen);
    return leave(&call, rv == CKR_OK ? failure : rv);
}

static CK_RV shim_C_Logout(CK_SESSION_HANDLE hSession)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_Logout, &hSession);
    if (rv == CKR_OK)
        rv = settings.personality == NSHIELD ? nshield_logout(call.session) : real->C_Logout(hSession);
    return leave(&call, rv);
}

/* ---- objects -------------------------------------------------------------------------------------------------- */

static CK_RV shim_C_CreateObject(CK_SESSION_HANDLE hSession, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount,
                                 CK_OBJECT_HANDLE *phObject)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_CreateObject, &hSession);
    if (rv == CKR_OK && settings.personality == NSHIELD)
        rv = nshield_check_template(call.session, pTemplate, ulCount);
    return leave(&call, rv != CKR_OK ? rv : real->C_CreateObject(hSession, pTemplate, ulCount, phObject));
}

static CK_RV shim_C_GenerateKey(CK_SESSION_HANDLE hSession, CK_MECHANISM *pMechanism, CK_ATTRIBUTE *pTemplate,
                                CK_ULONG ulCount, CK_OBJECT_HANDLE *phKey)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_GenerateKey, &hSession);
    if (rv == CKR_OK && settings.personality == NSHIELD)
        rv = nshield_check_template(call.session, pTemplate, ulCount);
    return leave(&call, rv != CKR_OK ? rv : real->C_GenerateKey(hSession, pMechanism, pTemplate, ulCount, phKey));
}

static CK_RV shim_C_GetAttributeValue(CK_SESSION_HANDLE hSession, CK_OBJECT_HANDLE hObject, CK_ATTRIBUTE *pTemplate,
                                      CK_ULONG ulCount)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_GetAttributeValue, &hSession);
    if (rv == CKR_OK)
        rv = settings.personality == NSHIELD ? nshield_attributes(call.session, hObject, pTemplate, ulCount)
                                             : real->C_GetAttributeValue(hSession, hObject, pTemplate, ulCount);
    if (rv == CKR_OK && ulCount == 1 && (atomic_load(&control->output_faults) & ATTRIBUTE_LONG) != 0)
        pTemplate->ulValueLen += 1u << 20; /* more than there was room for, and no error */
    return leave(&call, rv);
}

static CK_RV shim_C_FindObjectsInit(CK_SESSION_HANDLE hSession, CK_ATTRIBUTE *pTemplate, CK_ULONG ulCount)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_FindObjectsInit, &hSession);
    if (rv == CKR_OK)
        rv = settings.personality == NSHIELD ? nshield_find_init(call.session, pTemplate, ulCount)
                                             : real->C_FindObjectsInit(hSession, pTemplate, ulCount);
    return leave(&call, rv);
}

static CK_RV shim_C_FindObjects(CK_SESSION_HANDLE hSession, CK_OBJECT_HANDLE *phObject, CK_ULONG ulMax,
                                CK_ULONG *pulCount)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_FindObjects, &hSession);
    if (rv == CKR_OK)
        rv = settings.personality == NSHIELD ? nshield_find(call.session, phObject, ulMax, pulCount)
                                             : real->C_FindObjects(hSession, phObject, ulMax, pulCount);
    if (rv == CKR_OK && (atomic_load(&control->output_faults) & FIND_NOTHING) != 0)
        *pulCount = 0; /* as SoftHSM does when it cannot open its files */
    return leave(&call, rv);
}

static CK_RV shim_C_FindObjectsFinal(CK_SESSION_HANDLE hSession)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_FindObjectsFinal, &hSession);
    if (call.session == NULL || session_is_stale(call.session))
        return leave(&call, rv);
    /* Also after an injected failure, or SoftHSM would refuse the next search as already active. */
    CK_RV ended = real->C_FindObjectsFinal(hSession);
    session_drop_filter(call.session);
    return leave(&call, rv != CKR_OK ? rv : ended);
}

/* ---- encryption, decryption, random ------------------------------------------------------------------------------ */

static CK_RV shim_C_EncryptInit(CK_SESSION_HANDLE hSession, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_EncryptInit, &hSession);
    if (rv == CKR_OK && settings.personality == NSHIELD)
        rv = nshield_may_use_keys(call.session);
    return leave(&call, rv != CKR_OK ? rv : gcm_encrypt_init(call.session, pMechanism, hKey));
}

static CK_RV shim_C_DecryptInit(CK_SESSION_HANDLE hSession, CK_MECHANISM *pMechanism, CK_OBJECT_HANDLE hKey)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_DecryptInit, &hSession);
    if (rv == CKR_OK && settings.personality == NSHIELD)
        rv = nshield_may_use_keys(call.session);
    return leave(&call, rv != CKR_OK ? rv : gcm_decrypt_init(call.session, pMechanism, hKey));
}

static void count_bytes(CK_ULONG in, CK_ULONG out)
{
    atomic_fetch_add_explicit(&control->bytes_in, in, memory_order_relaxed);
    atomic_fetch_add_explicit(&control->bytes_out, out, memory_order_relaxed);
}

static bool is_usable(const struct call *call)
{
    return call->session != NULL && !session_is_stale(call->session);
}

static CK_RV shim_C_Encrypt(CK_SESSION_HANDLE hSession, CK_BYTE *pData, CK_ULONG ulDataLen, CK_BYTE *pOut,
                            CK_ULONG *pulOutLen)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_Encrypt, &hSession);
    if (rv == CKR_OK) {
        rv = gcm_encrypt(call.session, pData, ulDataLen, pOut, pulOutLen);
        if (rv == CKR_OK && pOut != NULL)
            count_bytes(ulDataLen, *pulOutLen);
    } else if (is_usable(&call)) {
        gcm_abandon_encrypt(call.session);
    }
    return leave(&call, rv);
}

static CK_RV shim_C_Decrypt(CK_SESSION_HANDLE hSession, CK_BYTE *pData, CK_ULONG ulDataLen, CK_BYTE *pOut,
                            CK_ULONG *pulOutLen)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_Decrypt, &hSession);
    if (rv == CKR_OK) {
        rv = gcm_decrypt(call.session, pData, ulDataLen, pOut, pulOutLen);
        if (rv == CKR_OK && pOut != NULL)
            count_bytes(ulDataLen, *pulOutLen);
    } else if (is_usable(&call)) {
        gcm_abandon_decrypt(call.session);
    }
    return leave(&call, rv);
}

/* Multi-part GCM would need the module's IV rules a second time, and nobody here uses it. */
static CK_RV shim_C_EncryptUpdate(CK_SESSION_HANDLE hSession, CK_BYTE *pPart, CK_ULONG ulPartLen, CK_BYTE *pOut,
                                  CK_ULONG *pulOutLen)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_EncryptUpdate, &hSession);
    if (rv == CKR_OK && call.session->gcm_encrypt.active && gcm_module_makes_iv()) {
        gcm_abandon_encrypt(call.session);
        rv = CKR_FUNCTION_NOT_SUPPORTED;
    }
    return leave(&call, rv != CKR_OK ? rv : real->C_EncryptUpdate(hSession, pPart, ulPartLen, pOut, pulOutLen));
}

static CK_RV shim_C_DecryptUpdate(CK_SESSION_HANDLE hSession, CK_BYTE *pPart, CK_ULONG ulPartLen, CK_BYTE *pOut,
                                  CK_ULONG *pulOutLen)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_DecryptUpdate, &hSession);
    if (rv == CKR_OK && call.session->gcm_decrypt.active && gcm_module_makes_iv()) {
        gcm_abandon_decrypt(call.session);
        rv = CKR_FUNCTION_NOT_SUPPORTED;
    }
    return leave(&call, rv != CKR_OK ? rv : real->C_DecryptUpdate(hSession, pPart, ulPartLen, pOut, pulOutLen));
}

static CK_RV shim_C_GenerateRandom(CK_SESSION_HANDLE hSession, CK_BYTE *pRandom, CK_ULONG ulLen)
{
    struct call call;
    CK_RV rv = enter_session(&call, FN_C_GenerateRandom, &hSession);
    if (rv == CKR_OK)
        rv = real->C_GenerateRandom(hSession, pRandom, ulLen);
    if (rv == CKR_OK) {
        gcm_spoil_random(pRandom, ulLen);
        count_bytes(0, ulLen);
    }
    return leave(&call, rv);
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

static CK_RV shim_C_GetFunctionList(CK_FUNCTION_LIST **ppFunctionList);

static CK_FUNCTION_LIST table = {
    .version = {2, 40},
#define FORWARD_ENTRY(name, params, args) .name = shim_##name,
#define CUSTOM_ENTRY(name, params) .name = shim_##name,
    CRYPTOKI_FUNCTIONS(FORWARD_ENTRY, CUSTOM_ENTRY)};

static CK_RV shim_C_GetFunctionList(CK_FUNCTION_LIST **ppFunctionList)
{
    if (ppFunctionList == NULL)
        return CKR_ARGUMENTS_BAD;
    pthread_once(&load_once, load);
    *ppFunctionList = &table;
    return CKR_OK;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ppFunctionList)
{
    return shim_C_GetFunctionList(ppFunctionList);
}
