/*
 * AES-GCM as each personality does it: who makes the IV, where it comes back,
 * which parameter structure is wanted, and what a bad tag is called.
 *
 * Everything here that is derived from public documents is *emulated, not
 * verified on hardware* (sources: docs/hsm-notes.md, 1.1 and 2).
 */
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "shim.h"

#define TAG_LEN 16
#define IN_PLACE_IV_LEN 12
#define LUNA_IV_LEN 16
#define CLOUDHSM_LIMIT 16384UL /* docs.aws ki-pkcs11-sdk: GCM buffers of at most 16 KB */

static const CK_BYTE STUCK[4] = {0x5A, 0xC3, 0x0F, 0x96};
static pthread_mutex_t last_iv_lock = PTHREAD_MUTEX_INITIALIZER;
static CK_BYTE last_iv[16];
static bool last_iv_known;

bool gcm_module_makes_iv(void)
{
    return settings.personality == NSHIELD || settings.personality == LUNA || settings.personality == CLOUDHSM;
}

static bool is_zero(const CK_BYTE *bytes, CK_ULONG length)
{
    CK_BYTE all = 0;
    for (CK_ULONG i = 0; i < length; i++)
        all |= bytes[i];
    return all == 0;
}

static void make_iv(CK_BYTE iv[16])
{
    uint32_t faults = faults_iv();
    if (getrandom(iv, 16, 0) != 16)
        shim_die("getrandom failed");
    if ((faults & IV_ZERO) != 0)
        memset(iv, 0, 16);
    pthread_mutex_lock(&last_iv_lock);
    if ((faults & IV_REPEAT) != 0 && last_iv_known)
        memcpy(iv, last_iv, 16);
    memcpy(last_iv, iv, 16);
    last_iv_known = true;
    pthread_mutex_unlock(&last_iv_lock);
}

/* A period of four makes any two IVs cut out of the bytes equal, whether of 12 or of 16 bytes. */
void gcm_spoil_random(CK_BYTE *bytes, CK_ULONG length)
{
    uint32_t faults = faults_iv();
    if ((faults & (RANDOM_REPEAT | RANDOM_ZERO)) == 0 || bytes == NULL)
        return;
    for (CK_ULONG i = 0; i < length; i++)
        bytes[i] = (faults & RANDOM_ZERO) != 0 ? 0 : STUCK[i % sizeof STUCK];
}

/* Reads the caller's parameters in the layout that this personality wants. */
static CK_RV read_parameters(const CK_MECHANISM *mechanism, CK_GCM_PARAMS *parameters)
{
    if (mechanism->pParameter == NULL)
        return CKR_MECHANISM_PARAM_INVALID;
    if (settings.personality == LEGACY_40_BYTE) {
        const CK_GCM_PARAMS_40 *five = mechanism->pParameter;
        if (mechanism->ulParameterLen != sizeof *five)
            return CKR_MECHANISM_PARAM_INVALID;
        *parameters = (CK_GCM_PARAMS){five->pIv,  five->ulIvLen,  8 * five->ulIvLen,
                                      five->pAAD, five->ulAADLen, five->ulTagBits};
        return CKR_OK;
    }
    if (mechanism->ulParameterLen != sizeof *parameters)
        return CKR_MECHANISM_PARAM_INVALID;
    *parameters = *(const CK_GCM_PARAMS *)mechanism->pParameter;
    if (settings.personality == NSS_STRICT && parameters->ulIvBits != 8 * parameters->ulIvLen)
        return CKR_MECHANISM_PARAM_INVALID;
    return CKR_OK;
}

/* Says whether the caller left the IV to the module in the way that this module wants. */
static bool iv_is_left_to_module(const CK_GCM_PARAMS *parameters)
{
    bool absent = parameters->pIv == NULL || parameters->ulIvLen == 0;
    if (settings.personality == LUNA)
        return absent;
    if (absent)
        return !settings.refuse_null_iv;
    return parameters->ulIvLen == IN_PLACE_IV_LEN && is_zero(parameters->pIv, parameters->ulIvLen);
}

static bool is_gcm(const CK_MECHANISM *mechanism)
{
    return mechanism != NULL && mechanism->mechanism == CKM_AES_GCM;
}

/* The modules that take SoftHSM's own parameters unchanged, so that its checks and quirks show. */
static bool passes_parameters_through(void)
{
    return settings.personality == PLAIN || settings.personality == SILENT_ZERO;
}

static void write_iv_in_place(const struct gcm_operation *operation)
{
    if (operation->caller_iv != NULL && (faults_iv() & IV_UNCHANGED) == 0)
        memcpy(operation->caller_iv, operation->iv, operation->iv_len);
}

CK_RV gcm_encrypt_init(struct session *session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    if (!is_gcm(mechanism)) {
        session->gcm_encrypt.active = false;
        return real->C_EncryptInit(session->real, mechanism, key);
    }
    if (settings.no_gcm)
        return CKR_MECHANISM_INVALID;
    CK_GCM_PARAMS parameters = {0};
    CK_RV rv = CKR_OK;
    if (!passes_parameters_through() || settings.refuse_null_iv)
        rv = read_parameters(mechanism, &parameters);
    if (rv != CKR_OK)
        return rv;
    bool absent = parameters.pIv == NULL || parameters.ulIvLen == 0;
    if (settings.refuse_null_iv && absent && settings.personality != LUNA)
        return CKR_MECHANISM_PARAM_INVALID;
    struct gcm_operation operation = {.active = true};
    if (gcm_module_makes_iv()) {
        if (!iv_is_left_to_module(&parameters))
            return CKR_MECHANISM_PARAM_INVALID;
        make_iv(operation.iv);
        operation.iv_len = settings.personality == LUNA ? LUNA_IV_LEN : IN_PLACE_IV_LEN;
        operation.caller_iv = settings.personality == LUNA || absent ? NULL : parameters.pIv;
        parameters.pIv = operation.iv;
        parameters.ulIvLen = operation.iv_len;
        parameters.ulIvBits = 8 * operation.iv_len;
    }
    CK_MECHANISM inner = {CKM_AES_GCM, &parameters, sizeof parameters};
    rv = real->C_EncryptInit(session->real, passes_parameters_through() ? mechanism : &inner, key);
    if (rv != CKR_OK)
        return rv;
    session->gcm_encrypt = operation;
    if (!settings.iv_late)
        write_iv_in_place(&operation);
    return CKR_OK;
}

/* Encrypts with room for the IV that Luna puts behind the tag. */
static CK_RV encrypt_appending_iv(struct session *session, CKIN(data, data_len), CKOUT(out, out_len))
{
    CK_ULONG wanted = data_len + TAG_LEN + LUNA_IV_LEN;
    CK_ULONG room = *out_len;
    *out_len = wanted;
    if (out == NULL)
        return CKR_OK;
    if (room < wanted)
        return CKR_BUFFER_TOO_SMALL;
    CK_ULONG inner_len = room - LUNA_IV_LEN;
    CK_RV rv = real->C_Encrypt(session->real, data, data_len, out, &inner_len);
    if (rv != CKR_OK)
        return rv;
    memcpy(out + inner_len, session->gcm_encrypt.iv, LUNA_IV_LEN);
    *out_len = inner_len + LUNA_IV_LEN;
    return CKR_OK;
}

CK_RV gcm_encrypt(struct session *session, CKIN(data, data_len), CKOUT(out, out_len))
{
    struct gcm_operation *operation = &session->gcm_encrypt;
    if (operation->active && settings.personality == CLOUDHSM && data_len > CLOUDHSM_LIMIT) {
        gcm_abandon_encrypt(session);
        return CKR_DATA_LEN_RANGE;
    }
    CK_RV rv = operation->active && settings.personality == LUNA && out_len != NULL
                   ? encrypt_appending_iv(session, data, data_len, out, out_len)
                   : real->C_Encrypt(session->real, data, data_len, out, out_len);
    if (rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && out == NULL))
        return rv; /* the operation goes on */
    if (rv == CKR_OK && operation->active && settings.iv_late)
        write_iv_in_place(operation);
    operation->active = false;
    uint32_t faults = atomic_load_explicit(&control->output_faults, memory_order_relaxed);
    if (rv == CKR_OK && *out_len > 0 && (faults & OUTPUT_CORRUPT) != 0)
        out[0] ^= 1;
    if (rv == CKR_OK && *out_len > 0 && (faults & OUTPUT_SHORT) != 0)
        *out_len -= 1;
    return rv;
}

CK_RV gcm_decrypt_init(struct session *session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    if (!is_gcm(mechanism)) {
        session->gcm_decrypt.active = false;
        return real->C_DecryptInit(session->real, mechanism, key);
    }
    if (settings.no_gcm)
        return CKR_MECHANISM_INVALID;
    CK_GCM_PARAMS parameters = {0};
    CK_RV rv = passes_parameters_through() ? CKR_OK : read_parameters(mechanism, &parameters);
    if (rv != CKR_OK)
        return rv;
    if (settings.personality == LUNA &&
        (parameters.pIv == NULL || parameters.ulIvLen != LUNA_IV_LEN || parameters.ulIvBits != 8 * LUNA_IV_LEN))
        return CKR_MECHANISM_PARAM_INVALID;
    CK_MECHANISM inner = {CKM_AES_GCM, &parameters, sizeof parameters};
    rv = real->C_DecryptInit(session->real, passes_parameters_through() ? mechanism : &inner, key);
    session->gcm_decrypt.active = rv == CKR_OK;
    return rv;
}

/* What this module says where SoftHSM says that the data did not decrypt. */
static CK_RV bad_tag(CK_RV rv)
{
    bool is_bad_tag = rv == CKR_GENERAL_ERROR || rv == CKR_ENCRYPTED_DATA_INVALID || rv == CKR_ENCRYPTED_DATA_LEN_RANGE;
    if (!is_bad_tag || !gcm_module_makes_iv())
        return rv;
    /* aws-kms-xks-proxy, commit b33dfee, for nShield; for the others no code is documented. */
    return settings.personality == NSHIELD ? CKR_FUNCTION_FAILED : CKR_ENCRYPTED_DATA_INVALID;
}

CK_RV gcm_decrypt(struct session *session, CKIN(data, data_len), CKOUT(out, out_len))
{
    if (!session->gcm_decrypt.active)
        return real->C_Decrypt(session->real, data, data_len, out, out_len);
    if (settings.personality == CLOUDHSM && data_len > CLOUDHSM_LIMIT + TAG_LEN) {
        gcm_abandon_decrypt(session);
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    CK_RV rv = real->C_Decrypt(session->real, data, data_len, out, out_len);
    if (rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && out == NULL))
        return rv;
    session->gcm_decrypt.active = false;
    return bad_tag(rv);
}

/*
 * A failed C_Encrypt or C_Decrypt ends the operation.  When the shim makes the
 * failure, SoftHSM has not seen the call, so one is spent on it.
 */
void gcm_abandon_encrypt(struct session *session)
{
    CK_BYTE block[16] = {0}, out[64];
    CK_ULONG out_len = sizeof out;
    real->C_Encrypt(session->real, block, sizeof block, out, &out_len);
    session->gcm_encrypt.active = false;
}

void gcm_abandon_decrypt(struct session *session)
{
    CK_BYTE block[32] = {0}, out[64];
    CK_ULONG out_len = sizeof out;
    real->C_Decrypt(session->real, block, sizeof block, out, &out_len);
    session->gcm_decrypt.active = false;
}
