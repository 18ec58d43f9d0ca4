/*
 * What the shim's files share: settings, the control file, sessions, and the
 * questions that shim.c asks of each personality.
 */
#ifndef HOLDFAST_SHIM_H
#define HOLDFAST_SHIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cryptoki.h"

enum function {
#define FORWARD_NUMBER(name, params, args) FN_##name,
#define CUSTOM_NUMBER(name, params) FN_##name,
    CRYPTOKI_FUNCTIONS(FORWARD_NUMBER, CUSTOM_NUMBER)
#undef FORWARD_NUMBER
#undef CUSTOM_NUMBER
    FUNCTION_COUNT
};

enum personality { PLAIN, NSHIELD, LUNA, CLOUDHSM, SILENT_ZERO, NSS_STRICT, LEGACY_40_BYTE };

struct settings {
    enum personality personality;
    bool iv_late, refuse_null_iv, no_gcm;
};

extern struct settings settings;
extern CK_FUNCTION_LIST *real; /* SoftHSM's table */

_Noreturn void shim_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *shim_environment(const char *name); /* an unset and an empty variable are both NULL */

/* ---- faults.c: the control file ------------------------------------------------------------ */

enum { LOST_KEEPS_SESSIONS = 1, LOST_NEEDS_REINIT = 2 };                  /* lost_flags */
enum { IV_REPEAT = 1, IV_ZERO = 2, IV_UNCHANGED = 4, RANDOM_REPEAT = 8, RANDOM_ZERO = 16 }; /* iv_faults */
enum { OUTPUT_CORRUPT = 1, OUTPUT_SHORT = 2, FIND_NOTHING = 4, ATTRIBUTE_LONG = 8 }; /* output_faults */
#define FOREVER 0xFFFFFFFFu

/* Rule 0 is for every function, rule 1+n for function n. */
struct rule {
    _Atomic uint32_t fail_rv, fail_times, delay_us, hang;
};

/*
 * The file at HOLDFAST_SHIM_CONTROL, little-endian, mapped by the tests and by
 * every process that uses the shim.  All zero means no fault.  control.py
 * declares the same fields in the same order; magic and size guard the pair.
 */
struct control {
    char magic[8];
    uint32_t size, function_count;
    _Atomic uint32_t lost_rv, lost_flags; /* device lost while lost_rv is not 0 */
    _Atomic uint64_t lost_until_ns;       /* CLOCK_MONOTONIC time of an unattended return, or 0 */
    _Atomic uint32_t session_epoch;       /* sessions opened under an older epoch are invalid */
    _Atomic uint32_t reinit_epoch, reinit_rv; /* libraries initialised under an older epoch stay dead */
    _Atomic uint32_t session_limit;       /* limit + 1; 0 is no limit */
    _Atomic uint32_t iv_faults, output_faults;
    _Atomic uint32_t lost_slot;           /* the one slot whose device is lost, + 1; 0 is every slot */
    uint32_t reserved;                    /* the rules begin on a 64-byte line */
    struct rule rules[1 + FUNCTION_COUNT];
    _Atomic uint32_t inside, inside_high, sessions, sessions_high;
    _Atomic uint64_t bytes_in, bytes_out, finalized_while_inside;
    _Atomic uint64_t calls[FUNCTION_COUNT];
};

extern struct control *control;

void control_attach(void);               /* maps the control file, once per process */
void faults_initialized(void);           /* a successful C_Initialize revives a dead library */
CK_RV faults_apply(enum function function); /* waits as told, then says CKR_OK or the injected failure */
#define NO_SLOT ((CK_SLOT_ID)-1)
CK_RV faults_device(CK_SLOT_ID slot);    /* CKR_OK, or the code while its device is lost */
uint32_t faults_iv(void);

/* ---- sessions.c ------------------------------------------------------------------------------ */

struct virtual_slot;

struct gcm_operation {
    bool active;
    CK_BYTE *caller_iv;   /* where an in-place IV goes; NULL when the caller gave no buffer */
    CK_ULONG iv_len;
    CK_BYTE iv[16];
};

struct session {
    _Atomic CK_SESSION_HANDLE handle; /* 0 once closed or invalidated */
    _Atomic uint32_t references;      /* one for being open, one per call inside */
    uint32_t index, epoch, generation;
    CK_SLOT_ID slot;                  /* as the caller named it */
    struct virtual_slot *virtual_slot; /* nShield only */
    CK_SESSION_HANDLE real;
    struct gcm_operation gcm_encrypt, gcm_decrypt;
    CK_ATTRIBUTE *filter;             /* nShield: the part of the find template that SoftHSM cannot judge */
    CK_ULONG filter_count;
};

CK_RV session_add(CK_SLOT_ID slot, struct virtual_slot *virtual_slot, CK_SESSION_HANDLE real_handle,
                  CK_SESSION_HANDLE *handle);
struct session *session_acquire(CK_SESSION_HANDLE handle);
void session_release(struct session *session);
void session_retire(struct session *session); /* the handle is invalid from now on */
bool session_is_stale(const struct session *session);
bool session_limit_reached(void);
void sessions_follow_epoch(void);          /* invalidates what a card removal or a lost device has closed */
void sessions_retire_slot(CK_SLOT_ID slot);
void sessions_finalized(void);             /* SoftHSM has forgotten all of them */
void session_drop_filter(struct session *session);

/* ---- gcm.c ------------------------------------------------------------------------------------- */

CK_RV gcm_encrypt_init(struct session *session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key);
CK_RV gcm_encrypt(struct session *session, CKIN(data, data_len), CKOUT(out, out_len));
CK_RV gcm_decrypt_init(struct session *session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key);
CK_RV gcm_decrypt(struct session *session, CKIN(data, data_len), CKOUT(out, out_len));
bool gcm_module_makes_iv(void);
void gcm_abandon_encrypt(struct session *session);
void gcm_abandon_decrypt(struct session *session);
void gcm_spoil_random(CK_BYTE *bytes, CK_ULONG length);

/* ---- nshield.c ---------------------------------------------------------------------------------- */

CK_RV nshield_initialize(void);
void nshield_finalize(void);
void nshield_describe_library(CK_INFO *info);
CK_RV nshield_slot_list(CK_BBOOL token_present, CK_SLOT_ID *list, CK_ULONG *count);
struct virtual_slot *nshield_slot(CK_SLOT_ID slot);
CK_RV nshield_real_slot(CK_SLOT_ID slot, CK_SLOT_ID *real_slot); /* refuses an empty reader */
CK_RV nshield_slot_info(CK_SLOT_ID slot, CK_SLOT_INFO *info);
CK_RV nshield_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info);
CK_RV nshield_login(struct session *session, CK_USER_TYPE user, const CK_BYTE *pin, CK_ULONG pin_len);
CK_RV nshield_logout(struct session *session);
CK_RV nshield_may_use_keys(const struct session *session);
CK_RV nshield_session_info(const struct session *session, CK_SESSION_INFO *info);
void nshield_session_opened(struct virtual_slot *slot);
void nshield_session_closed(struct virtual_slot *slot);
CK_RV nshield_check_template(const struct session *session, const CK_ATTRIBUTE *attributes, CK_ULONG count);
CK_RV nshield_attributes(struct session *session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes,
                         CK_ULONG count);
CK_RV nshield_find_init(struct session *session, CK_ATTRIBUTE *attributes, CK_ULONG count);
CK_RV nshield_find(struct session *session, CK_OBJECT_HANDLE *objects, CK_ULONG maximum, CK_ULONG *count);

#endif
