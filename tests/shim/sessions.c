/*
 * The shim's own session handles over SoftHSM's.  They exist so that a lost
 * device or a removed card can invalidate every open session at once, which
 * SoftHSM itself cannot do.  Looking a session up takes no lock.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shim.h"

#define CAPACITY 16384u
#define INDEX_BITS 16

static struct session sessions[CAPACITY];
static uint32_t free_list[CAPACITY], free_count, opened_high;
static pthread_mutex_t free_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t epoch_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t followed_epoch; /* the session_epoch that this process has acted on */
static _Atomic uint32_t generation = 1; /* grows with C_Finalize: older SoftHSM handles mean nothing */
static _Atomic uint32_t live;
static uint64_t serial;

static uint32_t take_index(void)
{
    if (free_count > 0)
        return free_list[--free_count];
    if (opened_high == CAPACITY)
        shim_die("more than %u sessions", CAPACITY);
    return opened_high++;
}

CK_RV session_add(CK_SLOT_ID slot, struct virtual_slot *virtual_slot, CK_SESSION_HANDLE real_handle,
                  CK_SESSION_HANDLE *handle)
{
    pthread_mutex_lock(&free_lock);
    uint32_t index = take_index();
    CK_SESSION_HANDLE fresh = (CK_SESSION_HANDLE)(++serial << INDEX_BITS) | index;
    pthread_mutex_unlock(&free_lock);
    struct session *session = &sessions[index];
    session->index = index;
    session->epoch = atomic_load(&followed_epoch);
    session->generation = atomic_load(&generation);
    session->slot = slot;
    session->virtual_slot = virtual_slot;
    session->real = real_handle;
    session->gcm_encrypt.active = session->gcm_decrypt.active = false;
    session->filter = NULL;
    if (virtual_slot != NULL)
        nshield_session_opened(virtual_slot);
    atomic_fetch_add(&live, 1);
    uint32_t now = atomic_fetch_add(&control->sessions, 1) + 1;
    if (now > atomic_load(&control->sessions_high))
        atomic_store(&control->sessions_high, now);
    atomic_store(&session->references, 1);
    atomic_store(&session->handle, fresh);
    *handle = fresh;
    return CKR_OK;
}

struct session *session_acquire(CK_SESSION_HANDLE handle)
{
    struct session *session = &sessions[handle & ((1u << INDEX_BITS) - 1) & (CAPACITY - 1)];
    if (handle == 0 || atomic_load(&session->handle) != handle)
        return NULL;
    uint32_t references = atomic_load(&session->references);
    do {
        if (references == 0) /* closed in between; reviving it would close it twice */
            return NULL;
    } while (!atomic_compare_exchange_weak(&session->references, &references, references + 1));
    if (atomic_load(&session->handle) == handle)
        return session;
    session_release(session);
    return NULL;
}

void session_release(struct session *session)
{
    if (atomic_fetch_sub(&session->references, 1) != 1)
        return;
    if (session->generation == atomic_load(&generation))
        real->C_CloseSession(session->real);
    session_drop_filter(session);
    pthread_mutex_lock(&free_lock);
    free_list[free_count++] = session->index;
    pthread_mutex_unlock(&free_lock);
}

void session_drop_filter(struct session *session)
{
    if (session->filter == NULL)
        return;
    for (CK_ULONG i = 0; i < session->filter_count; i++)
        free(session->filter[i].pValue);
    free(session->filter);
    session->filter = NULL;
}

void session_retire(struct session *session)
{
    CK_SESSION_HANDLE handle = atomic_exchange(&session->handle, 0);
    if (handle == 0)
        return;
    atomic_fetch_sub(&live, 1);
    atomic_fetch_sub(&control->sessions, 1);
    if (session->virtual_slot != NULL)
        nshield_session_closed(session->virtual_slot);
    session_release(session);
}

bool session_is_stale(const struct session *session)
{
    return session->epoch != atomic_load_explicit(&control->session_epoch, memory_order_relaxed) ||
           session->generation != atomic_load_explicit(&generation, memory_order_relaxed);
}

bool session_limit_reached(void)
{
    uint32_t limit = atomic_load(&control->session_limit);
    return limit != 0 && atomic_load(&live) >= limit - 1;
}

/* Runs visit on every open session; the reference held keeps the session from being reused meanwhile. */
static void each_open(void (*visit)(struct session *, void *), void *argument)
{
    pthread_mutex_lock(&free_lock);
    uint32_t end = opened_high;
    pthread_mutex_unlock(&free_lock);
    for (uint32_t i = 0; i < end; i++) {
        CK_SESSION_HANDLE handle = atomic_load(&sessions[i].handle);
        struct session *session = handle != 0 ? session_acquire(handle) : NULL;
        if (session == NULL)
            continue;
        visit(session, argument);
        session_release(session);
    }
}

static void log_out_if_stale(struct session *session, void *argument)
{
    (void)argument;
    /* The session that closes last would log out too, but a hung call can keep one open. */
    if (session_is_stale(session) && session->virtual_slot == NULL)
        real->C_Logout(session->real);
}

static void retire_if_stale(struct session *session, void *argument)
{
    (void)argument;
    if (session_is_stale(session))
        session_retire(session);
}

static void retire_if_on_slot(struct session *session, void *argument)
{
    if (session->slot == *(CK_SLOT_ID *)argument)
        session_retire(session);
}

static void retire_any(struct session *session, void *argument)
{
    (void)argument;
    session_retire(session);
}

void sessions_follow_epoch(void)
{
    if (atomic_load_explicit(&control->session_epoch, memory_order_relaxed) ==
        atomic_load_explicit(&followed_epoch, memory_order_relaxed))
        return;
    pthread_mutex_lock(&epoch_lock);
    uint32_t epoch = atomic_load(&control->session_epoch);
    if (epoch != atomic_load(&followed_epoch)) {
        each_open(log_out_if_stale, NULL);
        each_open(retire_if_stale, NULL);
        atomic_store(&followed_epoch, epoch);
    }
    pthread_mutex_unlock(&epoch_lock);
}

void sessions_retire_slot(CK_SLOT_ID slot)
{
    each_open(retire_if_on_slot, &slot);
}

void sessions_finalized(void)
{
    atomic_fetch_add(&generation, 1);
    each_open(retire_any, NULL);
}
