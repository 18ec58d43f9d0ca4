/*
 * nShield's slots, tokens, login rules, attributes and frozen keys over
 * ordinary SoftHSM tokens.
 *
 * Everything here is derived from public documents, published logs and source
 * code (docs/hsm-notes.md, 1.2, 1.3 and 1.5): *emulated, not verified on
 * hardware*.  Where no source gives a return code, the comment says "chosen".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim.h"

#define SLOT_BASE 0x1D622495UL
#define SHARED_SLOT_BASE 0x2D622495UL
#define ACCELERATOR_FLAGS 0x201UL
#define SHARED_ACCELERATOR_FLAGS 0x609UL
#define CARD_FLAGS 0x20DUL
#define MAX_PIN_LEN 256UL
#define MAX_SLOTS 8
#define MAX_TOKENS 3
#define ALL_TOKENS 64
#define COMPARED_VALUE_MAX 256

/* A SoftHSM token that lends its objects to one or more emulated slots. */
struct backing {
    CK_SLOT_ID real_slot;
    CK_SESSION_HANDLE anchor; /* holds the login behind the scenes until C_Finalize */
    CK_OBJECT_HANDLE *frozen; /* sorted: the token objects that were there at C_Initialize */
    CK_ULONG frozen_count;
};

struct virtual_slot {
    CK_SLOT_ID id;
    char label[33];
    const char *serial;
    CK_FLAGS flags;
    bool is_card;              /* operator card or softcard: has a passphrase, holds private keys */
    struct backing *backing;   /* NULL: an empty reader */
    _Atomic uint32_t sessions;
    _Atomic uint64_t login;    /* 1 + the session epoch of the login, or 0 */
};

static struct backing backings[MAX_TOKENS];
static struct virtual_slot slots[MAX_SLOTS];
static CK_ULONG backing_count, slot_count;
static bool keys_are_frozen, fake_login;
static const CK_BYTE *token_pin;
static CK_ULONG token_pin_len;

static bool is_one(const char *name)
{
    const char *value = shim_environment(name);
    return value != NULL && strcmp(value, "1") == 0;
}

static void pad(CK_UTF8CHAR *field, size_t size, const char *text)
{
    size_t length = strlen(text);
    memset(field, ' ', size);
    memcpy(field, text, length < size ? length : size);
}

static bool has_label(const CK_TOKEN_INFO *info, const char *label)
{
    CK_UTF8CHAR padded[sizeof info->label];
    pad(padded, sizeof padded, label);
    return memcmp(padded, info->label, sizeof padded) == 0;
}

static int by_value(const void *left, const void *right)
{
    CK_OBJECT_HANDLE a = *(const CK_OBJECT_HANDLE *)left, b = *(const CK_OBJECT_HANDLE *)right;
    return (a > b) - (a < b);
}

static CK_RV freeze(struct backing *backing)
{
    CK_OBJECT_HANDLE batch[64];
    CK_ULONG count = 0;
    CK_RV rv = real->C_FindObjectsInit(backing->anchor, NULL, 0);
    while (rv == CKR_OK && (rv = real->C_FindObjects(backing->anchor, batch, 64, &count)) == CKR_OK && count > 0) {
        CK_ULONG total = backing->frozen_count + count;
        CK_OBJECT_HANDLE *grown = realloc(backing->frozen, total * sizeof *grown);
        if (grown == NULL)
            shim_die("out of memory");
        memcpy(grown + backing->frozen_count, batch, count * sizeof *grown);
        backing->frozen = grown;
        backing->frozen_count = total;
    }
    real->C_FindObjectsFinal(backing->anchor);
    if (backing->frozen_count > 0)
        qsort(backing->frozen, backing->frozen_count, sizeof *backing->frozen, by_value);
    return rv;
}

/* Borrows the SoftHSM token with this label, or without a label the first one that no card claims. */
static struct backing *borrow(const char *label, const char *ocs, const char *softcard)
{
    CK_SLOT_ID all[ALL_TOKENS];
    CK_ULONG count = ALL_TOKENS;
    CK_TOKEN_INFO info;
    struct backing *backing = &backings[backing_count];
    if (real->C_GetSlotList(1, all, &count) != CKR_OK)
        return NULL;
    for (CK_ULONG i = 0; i < count; i++) {
        if (real->C_GetTokenInfo(all[i], &info) != CKR_OK || (info.flags & CKF_TOKEN_INITIALIZED) == 0)
            continue;
        bool is_claimed = (ocs != NULL && has_label(&info, ocs)) || (softcard != NULL && has_label(&info, softcard));
        if (label != NULL ? !has_label(&info, label) : is_claimed)
            continue;
        *backing = (struct backing){.real_slot = all[i]};
        if (real->C_OpenSession(all[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &backing->anchor) != CKR_OK)
            return NULL;
        if (token_pin != NULL &&
            real->C_Login(backing->anchor, CKU_USER, (CK_BYTE *)token_pin, token_pin_len) != CKR_OK) {
            fprintf(stderr, "holdfast shim: HOLDFAST_SHIM_TOKEN_PIN is not the PIN of SoftHSM slot %lu\n", all[i]);
            return NULL;
        }
        if (keys_are_frozen && freeze(backing) != CKR_OK)
            return NULL;
        backing_count++;
        return backing;
    }
    fprintf(stderr, "holdfast shim: no SoftHSM token %s\n", label != NULL ? label : "for the accelerator");
    return NULL;
}

static void add_slot(CK_SLOT_ID id, const char *label, const char *serial, CK_FLAGS flags, bool is_card,
                     struct backing *backing)
{
    struct virtual_slot *slot = &slots[slot_count++];
    *slot = (struct virtual_slot){.id = id, .serial = serial, .flags = flags, .is_card = is_card, .backing = backing};
    snprintf(slot->label, sizeof slot->label, "%s", label);
}

CK_RV nshield_initialize(void)
{
    const char *ocs = shim_environment("HOLDFAST_SHIM_OCS_TOKEN");
    const char *softcard = shim_environment("HOLDFAST_SHIM_SOFTCARD_TOKEN");
    const char *single = shim_environment("CKNFAST_ASSUME_SINGLE_PROCESS");
    const char *modules = shim_environment("HOLDFAST_SHIM_NSHIELD_MODULES");
    token_pin = (const CK_BYTE *)shim_environment("HOLDFAST_SHIM_TOKEN_PIN");
    token_pin_len = token_pin != NULL ? strlen((const char *)token_pin) : 0;
    keys_are_frozen = single == NULL || strcmp(single, "0") != 0;
    fake_login = is_one("CKNFAST_FAKE_ACCELERATOR_LOGIN");
    backing_count = slot_count = 0;
    if ((ocs != NULL || softcard != NULL) && token_pin == NULL)
        shim_die("cards need HOLDFAST_SHIM_TOKEN_PIN");
    struct backing *accelerator = borrow(shim_environment("HOLDFAST_SHIM_TOKEN"), ocs, softcard);
    struct backing *card = ocs != NULL ? borrow(ocs, NULL, NULL) : NULL;
    struct backing *soft = softcard != NULL ? borrow(softcard, NULL, NULL) : NULL;
    if (accelerator == NULL || (ocs != NULL && card == NULL) || (softcard != NULL && soft == NULL))
        return CKR_GENERAL_ERROR;
    if (is_one("CKNFAST_HSM_POOL")) {
        add_slot(SLOT_BASE, "accelerator", "", ACCELERATOR_FLAGS, false, accelerator);
    } else if (is_one("CKNFAST_LOADSHARING")) {
        add_slot(SHARED_SLOT_BASE, "loadshared accelerator", "", SHARED_ACCELERATOR_FLAGS, false, accelerator);
        if (card != NULL)
            add_slot(SHARED_SLOT_BASE + 1, ocs, "33b3dd5f3ee4a1b7", CARD_FLAGS, true, card);
        if (soft != NULL)
            add_slot(SHARED_SLOT_BASE + 2, softcard, "5c0ffee5c0ffee01", CARD_FLAGS, true, soft);
    } else {
        /* Softcards need load-sharing; the card lies in the first module's reader. */
        add_slot(SLOT_BASE, "accelerator", "6262-799D-D906", ACCELERATOR_FLAGS, false, accelerator);
        add_slot(SLOT_BASE + 1, ocs != NULL ? ocs : "", "33b3dd5f3ee4a1b7", CARD_FLAGS, true, card);
        if (modules == NULL || strcmp(modules, "1") != 0) {
            add_slot(SLOT_BASE + 2, "accelerator", "6262-799D-D907", ACCELERATOR_FLAGS, false, accelerator);
            add_slot(SLOT_BASE + 3, "", "", CARD_FLAGS, true, NULL);
        }
    }
    return CKR_OK;
}

void nshield_finalize(void)
{
    for (CK_ULONG i = 0; i < backing_count; i++)
        free(backings[i].frozen);
    memset(backings, 0, sizeof backings);
    backing_count = slot_count = 0;
}

void nshield_describe_library(CK_INFO *info)
{
    pad(info->manufacturerID, sizeof info->manufacturerID, "nCipher Corp. Ltd");
    pad(info->libraryDescription, sizeof info->libraryDescription, "nShield emulated over SoftHSM");
}

/* ---- slots and tokens ------------------------------------------------------------------------- */

CK_RV nshield_slot_list(CK_BBOOL token_present, CK_SLOT_ID *list, CK_ULONG *count)
{
    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG room = *count, found = 0;
    for (CK_ULONG i = 0; i < slot_count; i++) {
        if (token_present && slots[i].backing == NULL)
            continue;
        if (list != NULL && found < room)
            list[found] = slots[i].id;
        found++;
    }
    *count = found;
    return list != NULL && found > room ? CKR_BUFFER_TOO_SMALL : CKR_OK;
}

struct virtual_slot *nshield_slot(CK_SLOT_ID slot)
{
    for (CK_ULONG i = 0; i < slot_count; i++)
        if (slots[i].id == slot)
            return &slots[i];
    return NULL;
}

CK_RV nshield_real_slot(CK_SLOT_ID slot, CK_SLOT_ID *real_slot)
{
    const struct virtual_slot *found = nshield_slot(slot);
    if (found == NULL)
        return CKR_SLOT_ID_INVALID;
    if (found->backing == NULL)
        return CKR_TOKEN_NOT_PRESENT;
    *real_slot = found->backing->real_slot;
    return CKR_OK;
}

CK_RV nshield_slot_info(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    const struct virtual_slot *found = nshield_slot(slot);
    if (found == NULL)
        return CKR_SLOT_ID_INVALID;
    if (info == NULL)
        return CKR_ARGUMENTS_BAD;
    memset(info, 0, sizeof *info);
    pad(info->slotDescription, sizeof info->slotDescription, "emulated nShield slot");
    pad(info->manufacturerID, sizeof info->manufacturerID, "nCipher Corp. Ltd");
    info->flags = CKF_HW_SLOT | (found->backing != NULL ? CKF_TOKEN_PRESENT : 0);
    return CKR_OK;
}

CK_RV nshield_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    const struct virtual_slot *found = nshield_slot(slot);
    if (found == NULL || found->backing == NULL)
        return found == NULL ? CKR_SLOT_ID_INVALID : CKR_TOKEN_NOT_PRESENT;
    CK_RV rv = real->C_GetTokenInfo(found->backing->real_slot, info);
    if (rv != CKR_OK)
        return rv;
    pad(info->label, sizeof info->label, found->label);
    pad(info->manufacturerID, sizeof info->manufacturerID, "nCipher Corp. Ltd");
    pad(info->model, sizeof info->model, "");
    pad(info->serialNumber, sizeof info->serialNumber, found->serial);
    info->flags = found->flags;
    info->ulMaxSessionCount = info->ulMaxRwSessionCount = 0; /* CK_EFFECTIVELY_INFINITE */
    info->ulSessionCount = info->ulRwSessionCount = atomic_load(&found->sessions);
    info->ulMaxPinLen = MAX_PIN_LEN;
    info->ulMinPinLen = 0;
    return CKR_OK;
}

/* ---- sessions and login ------------------------------------------------------------------------ */

void nshield_session_opened(struct virtual_slot *slot)
{
    atomic_fetch_add(&slot->sessions, 1);
}

void nshield_session_closed(struct virtual_slot *slot)
{
    if (atomic_fetch_sub(&slot->sessions, 1) == 1)
        atomic_store(&slot->login, 0); /* closing the last session logs out */
}

static bool is_logged_in(const struct session *session)
{
    return atomic_load(&session->virtual_slot->login) == (uint64_t)session->epoch + 1;
}

CK_RV nshield_login(struct session *session, CK_USER_TYPE user, const CK_BYTE *pin, CK_ULONG pin_len)
{
    struct virtual_slot *slot = session->virtual_slot;
    if (user != CKU_USER || (!slot->is_card && !fake_login))
        return CKR_FUNCTION_NOT_SUPPORTED; /* chosen: the documents say only that it fails */
    if (is_logged_in(session))
        return CKR_USER_ALREADY_LOGGED_IN;
    if (slot->is_card && (pin == NULL || pin_len != token_pin_len || memcmp(pin, token_pin, pin_len) != 0))
        return CKR_PIN_INCORRECT;
    atomic_store(&slot->login, (uint64_t)session->epoch + 1);
    return CKR_OK;
}

CK_RV nshield_logout(struct session *session)
{
    if (!is_logged_in(session))
        return CKR_USER_NOT_LOGGED_IN;
    atomic_store(&session->virtual_slot->login, 0);
    return CKR_OK;
}

CK_RV nshield_may_use_keys(const struct session *session)
{
    return session->virtual_slot->is_card && !is_logged_in(session) ? CKR_USER_NOT_LOGGED_IN : CKR_OK;
}

CK_RV nshield_session_info(const struct session *session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session->real, info);
    if (rv != CKR_OK)
        return rv;
    bool read_write = (info->flags & CKF_RW_SESSION) != 0;
    /* SoftHSM is logged in behind the scenes; the caller sees only its own login. */
    if (is_logged_in(session))
        info->state = read_write ? CKS_RW_USER_FUNCTIONS : CKS_RO_USER_FUNCTIONS;
    else
        info->state = read_write ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION;
    info->slotID = session->slot;
    return CKR_OK;
}

CK_RV nshield_check_template(const struct session *session, const CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    if (session->virtual_slot->is_card || attributes == NULL)
        return nshield_may_use_keys(session);
    for (CK_ULONG i = 0; i < count; i++)
        if (attributes[i].type == CKA_PRIVATE && attributes[i].pValue != NULL && attributes[i].ulValueLen == 1 &&
            *(const CK_BBOOL *)attributes[i].pValue != 0)
            return CKR_TEMPLATE_INCONSISTENT; /* no private objects on an accelerator slot; the code is chosen */
    return CKR_OK;
}

/* ---- attributes ---------------------------------------------------------------------------------- */

struct emulated {
    CK_RV rv;
    CK_BYTE value[sizeof(CK_ULONG)];
    CK_ULONG length;
};

/* What cklist shows for a key made with generatekey, where that differs from SoftHSM. */
static bool emulate(CK_ATTRIBUTE_TYPE type, bool is_card, struct emulated *emulated)
{
    CK_ULONG unavailable = CK_UNAVAILABLE_INFORMATION;
    *emulated = (struct emulated){.rv = CKR_OK, .length = sizeof(CK_BBOOL)};
    switch (type) {
    case CKA_ID:
        emulated->length = 0;
        return true;
    case CKA_LOCAL:
        return true;
    case CKA_PRIVATE:
        emulated->value[0] = is_card;
        return true;
    case CKA_WRAP:
    case CKA_UNWRAP:
    case CKA_SIGN:
    case CKA_VERIFY:
        emulated->value[0] = 1;
        return true;
    case CKA_KEY_GEN_MECHANISM:
        memcpy(emulated->value, &unavailable, sizeof unavailable);
        emulated->length = sizeof unavailable;
        return true;
    case CKA_ALWAYS_AUTHENTICATE:
        emulated->rv = CKR_ATTRIBUTE_TYPE_INVALID;
        return true;
    default:
        return false;
    }
}

static CK_RV answer(const struct emulated *emulated, CK_ATTRIBUTE *attribute)
{
    bool fits = attribute->pValue == NULL || attribute->ulValueLen >= emulated->length;
    if (emulated->rv != CKR_OK || !fits) {
        attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return emulated->rv != CKR_OK ? emulated->rv : CKR_BUFFER_TOO_SMALL;
    }
    if (attribute->pValue != NULL)
        memcpy(attribute->pValue, emulated->value, emulated->length);
    attribute->ulValueLen = emulated->length;
    return CKR_OK;
}

static CK_RV is_secret_key(const struct session *session, CK_OBJECT_HANDLE object, bool *is_key)
{
    CK_OBJECT_CLASS class = 0;
    CK_ATTRIBUTE attribute = {CKA_CLASS, &class, sizeof class};
    CK_RV rv = real->C_GetAttributeValue(session->real, object, &attribute, 1);
    *is_key = class == CKO_SECRET_KEY;
    return rv;
}

CK_RV nshield_attributes(struct session *session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    bool is_key;
    CK_RV rv = is_secret_key(session, object, &is_key);
    if (rv != CKR_OK || !is_key || attributes == NULL)
        return rv != CKR_OK ? rv : real->C_GetAttributeValue(session->real, object, attributes, count);
    for (CK_ULONG i = 0; i < count; i++) {
        struct emulated emulated;
        CK_RV one = emulate(attributes[i].type, session->virtual_slot->is_card, &emulated)
                        ? answer(&emulated, &attributes[i])
                        : real->C_GetAttributeValue(session->real, object, &attributes[i], 1);
        if (one != CKR_OK)
            rv = one; /* the others are still answered, as the standard asks */
    }
    return rv;
}

/* ---- finding keys --------------------------------------------------------------------------------- */

CK_RV nshield_find_init(struct session *session, CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    CK_ULONG passed = 0, kept = 0;
    CK_ATTRIBUTE *inner = calloc(count + 1, sizeof *inner), *filter = calloc(count + 1, sizeof *filter);
    if (inner == NULL || filter == NULL)
        shim_die("out of memory");
    for (CK_ULONG i = 0; attributes != NULL && i < count; i++) {
        struct emulated ignored;
        if (!emulate(attributes[i].type, false, &ignored)) {
            inner[passed++] = attributes[i];
            continue;
        }
        filter[kept] = attributes[i];
        filter[kept].pValue = malloc(attributes[i].ulValueLen + 1);
        if (filter[kept].pValue == NULL)
            shim_die("out of memory");
        if (attributes[i].pValue != NULL)
            memcpy(filter[kept].pValue, attributes[i].pValue, attributes[i].ulValueLen);
        kept++;
    }
    CK_RV rv = real->C_FindObjectsInit(session->real, inner, passed);
    free(inner);
    if (rv == CKR_OK) {
        session_drop_filter(session);
        session->filter = filter;
        session->filter_count = kept;
        return rv;
    }
    for (CK_ULONG i = 0; i < kept; i++)
        free(filter[i].pValue);
    free(filter);
    return rv;
}

static bool passes_filter(struct session *session, CK_OBJECT_HANDLE object)
{
    for (CK_ULONG i = 0; i < session->filter_count; i++) {
        CK_BYTE value[COMPARED_VALUE_MAX];
        CK_ATTRIBUTE attribute = {session->filter[i].type, value, sizeof value};
        if (nshield_attributes(session, object, &attribute, 1) != CKR_OK ||
            attribute.ulValueLen != session->filter[i].ulValueLen ||
            memcmp(value, session->filter[i].pValue, attribute.ulValueLen) != 0)
            return false;
    }
    return true;
}

static bool is_visible(struct session *session, CK_OBJECT_HANDLE object)
{
    const struct backing *backing = session->virtual_slot->backing;
    CK_BBOOL on_token = 0;
    bool is_key = false;
    CK_ATTRIBUTE attribute = {CKA_TOKEN, &on_token, sizeof on_token};
    if (real->C_GetAttributeValue(session->real, object, &attribute, 1) != CKR_OK ||
        is_secret_key(session, object, &is_key) != CKR_OK)
        return false;
    if (is_key && nshield_may_use_keys(session) != CKR_OK)
        return false; /* card keys are private: loaded by C_Login */
    if (!keys_are_frozen || !on_token)
        return true;
    return backing->frozen_count > 0 && bsearch(&object, backing->frozen, backing->frozen_count,
                                                sizeof *backing->frozen, by_value) != NULL;
}

CK_RV nshield_find(struct session *session, CK_OBJECT_HANDLE *objects, CK_ULONG maximum, CK_ULONG *count)
{
    if (objects == NULL || count == NULL)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG found = 0;
    while (found < maximum) {
        CK_OBJECT_HANDLE object;
        CK_ULONG one = 0;
        CK_RV rv = real->C_FindObjects(session->real, &object, 1, &one);
        if (rv != CKR_OK)
            return rv;
        if (one == 0)
            break;
        if (is_visible(session, object) && passes_filter(session, object))
            objects[found++] = object;
    }
    *count = found;
    return CKR_OK;
}
