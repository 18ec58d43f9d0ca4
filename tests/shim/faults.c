/*
 * Faults on demand: tests write the control file while a server uses the shim,
 * and every call looks at it.  Without a fault a call costs a handful of
 * relaxed loads; no lock is ever taken here.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

#define RELAXED memory_order_relaxed
#define HANG_POLL_NS 1000000L
#define STRANDED 2u /* a rule's hang: this call never returns, whatever becomes of the rule */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the control file is little-endian");
_Static_assert(sizeof(struct rule) == 16, "control.py relies on 16-byte rules");
_Static_assert(offsetof(struct control, rules) == 64, "a rule must not straddle two cache lines");

static const char MAGIC[8] = {'H', 'F', 'S', 'H', 'I', 'M', '0', '1'};
static struct control unattended; /* used without a control file: no fault is ever set */
struct control *control = &unattended;
static _Atomic uint32_t initialized_under; /* the reinit_epoch seen by the last C_Initialize */

void control_attach(void)
{
    const char *path = shim_environment("HOLDFAST_SHIM_CONTROL");
    if (path == NULL || control != &unattended)
        return;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0)
        shim_die("cannot open the control file %s: %s", path, strerror(errno));
    if (status.st_size != (off_t)sizeof(struct control))
        shim_die("the control file %s has %ld bytes, expected %zu: control.py and shim.h differ", path,
                 (long)status.st_size, sizeof(struct control));
    struct control *mapped = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED)
        shim_die("cannot map the control file %s: %s", path, strerror(errno));
    close(descriptor);
    if (memcmp(mapped->magic, MAGIC, sizeof MAGIC) != 0 || mapped->size != sizeof *mapped ||
        mapped->function_count != FUNCTION_COUNT)
        shim_die("%s is not a control file of this shim", path);
    control = mapped;
}

void faults_initialized(void)
{
    atomic_store(&initialized_under, atomic_load(&control->reinit_epoch));
}

static void sleep_ns(long nanoseconds)
{
    struct timespec left = {nanoseconds / 1000000000L, nanoseconds % 1000000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static void wait_as_told(struct rule *rule)
{
    uint32_t delay = atomic_load_explicit(&rule->delay_us, RELAXED);
    if (delay != 0)
        sleep_ns((long)delay * 1000L);
    uint32_t hang;
    while ((hang = atomic_load_explicit(&rule->hang, RELAXED)) != 0) {
        if (hang == STRANDED)
            for (;;)
                sleep_ns(HANG_POLL_NS);
        sleep_ns(HANG_POLL_NS);
    }
}

/* Takes one of the rule's failures, if any is left. */
static CK_RV take_failure(struct rule *rule)
{
    uint32_t left = atomic_load_explicit(&rule->fail_times, RELAXED);
    while (left != 0) {
        if (left == FOREVER)
            return atomic_load(&rule->fail_rv);
        if (atomic_compare_exchange_weak(&rule->fail_times, &left, left - 1))
            return atomic_load(&rule->fail_rv);
    }
    return CKR_OK;
}

CK_RV faults_apply(enum function function)
{
    struct rule *any = &control->rules[0], *own = &control->rules[1 + function];
    wait_as_told(any);
    wait_as_told(own);
    CK_RV rv = take_failure(own);
    return rv != CKR_OK ? rv : take_failure(any);
}

static void return_when_due(void)
{
    uint64_t until = atomic_load_explicit(&control->lost_until_ns, RELAXED);
    if (until == 0)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec < until)
        return;
    /* One thread of one process does this, in the order of ShimControl.device_back. */
    if (!atomic_compare_exchange_strong(&control->lost_until_ns, &until, 0))
        return;
    uint32_t flags = atomic_load(&control->lost_flags);
    if ((flags & LOST_NEEDS_REINIT) != 0) {
        atomic_store(&control->reinit_rv, atomic_load(&control->lost_rv));
        atomic_fetch_add(&control->reinit_epoch, 1);
    }
    if ((flags & LOST_KEEPS_SESSIONS) == 0)
        atomic_fetch_add(&control->session_epoch, 1);
    atomic_store(&control->lost_rv, 0);
}

static bool is_lost(CK_SLOT_ID slot)
{
    uint32_t only = atomic_load_explicit(&control->lost_slot, RELAXED);
    return only == 0 || only == slot + 1;
}

CK_RV faults_device(CK_SLOT_ID slot)
{
    CK_RV rv = atomic_load_explicit(&control->lost_rv, memory_order_acquire);
    if (rv != CKR_OK && is_lost(slot)) {
        return_when_due();
        rv = atomic_load_explicit(&control->lost_rv, memory_order_acquire);
        if (rv != CKR_OK)
            return rv;
    }
    if (atomic_load_explicit(&control->reinit_epoch, RELAXED) != atomic_load_explicit(&initialized_under, RELAXED))
        return atomic_load(&control->reinit_rv);
    return CKR_OK;
}

uint32_t faults_iv(void)
{
    return atomic_load_explicit(&control->iv_faults, RELAXED);
}
