"""The event loop's requests on the threads that call the HSM. This page is the theory; the modules are short.

The problem
===========
A C_ call blocks, may take 5 ms, and may never return; nothing can interrupt it. The event loop must never wait for
it. KMS waits 250 ms for an answer and takes a late one for none, so each job has a deadline, and each caller must
have a result or a fault by then, whatever the HSM does. A thread that is in a call that does not return is lost
until it does.

The rooms
=========
    dispatcher.py   the loop side:    admits jobs, expires them, delivers their results. One per HSM and process.
    crew.py         the thread side:  one thread per session; who is stuck, and who replaces it.
    handover.py     between the two:  every field that one side writes and the other reads.
    breaker.py      what is believed of the HSM: who is refused at once, and when to probe.

Neither side imports the other. The crew, the sessions and the health monitor (`..health`) are all given the
breaker, so that none of them needs another one to be made first.

A job's way:

    loop    Dispatcher.admit -> (this turn's jobs) -> JobQueue.put
    thread  JobQueue.take -> Module.enter -> Seat.take -> the work -> Module.leave -> Seat.leave -> Outbox.put
    loop    Outbox.take_all -> Dispatcher._settle -> the caller's future

The hand-over without a lock
============================
A lock would be held by a thread that has lost the GIL in the very moment the loop wants it. So there is one rule,
five times:

    **Each side writes its own field first, and then reads the other's.**

Of two sides that do so, at least one reads what the other has written: if the loop's read came too early to see the
thread's write, then the loop's own write, which is earlier still, is there when the thread reads. Both may see each
other, and each pair says who acts then; that neither sees the other cannot happen.

    pair           the loop writes, reads              a thread writes, reads           if both see
    -------------  ----------------------------------  -------------------------------  ----------------------------
    a late job     Job.expired, then Job.seat          Job.seat, then Job.expired       the thread skips the work,
                   (Job.expire)                        (Seat.take)                      at most stuck for a moment
    a stuck        Seat.stuck, then Seat.job           Seat.job = None, then Seat.stuck  the loop takes it back; the
    thread         (Seat.stick)                        (Seat.leave)                     thread looks at its session
    a sleeper      the jobs, then the parked threads   itself parked, then the jobs     whoever takes the Waiter off
                   (JobQueue.put)                      (JobQueue.take)                  the list first
    a finished     Outbox._waking = False, then the    the job, then Outbox._waking     the loop is woken once more
    job            jobs (Outbox.take_all)              (Outbox.put, flush)              than need be
    the library    Module's gate, then who is inside   Presence.inside, then the gate   the thread waits outside
                   (Module.reinitialize)               (Module.enter)

In `Seat.take`, `Seat.job` is written before `Job.seat`: whoever finds the seat of a job finds the job on it, until
the call has returned.

This rests on CPython's GIL, which orders every read and write of an attribute and makes the methods of deque and
list one step each. A build without the GIL would need a fence between the write and the read.
tests/hsm/test_handover.py runs the first four through every order of their lines that two switches can make.

A field that is not in the table has one writer, who is done before the job is handed on. Locks are left where the
loop rarely comes: the crew's, around its numbers when a thread opens, sticks, returns or ends, and the breaker's.

Five looks at the deadline
==========================
Each stops what the others cannot.

    1  admission    Dispatcher.admit     before the queue: the median call, times those waiting, says that the job
                                         would be late. Refused at once (HsmBusy): nothing is spent on it.
    2  expiry       Dispatcher._expire   a timer, at the deadline: the caller is answered, whatever the threads do.
                                         HsmTimeout if a thread has it, or no call has returned since it came;
                                         HsmBusy if others were served meanwhile.
    3  before the   HsmThread._perform   a thread has it, and the deadline has passed, or the loop gave up (2), or the
       call                              caller has (cancelled): the HSM does no work for nobody.
    4  delivery     Dispatcher._drain    the result is here, but the loop was busy and its timer (2) has not
                                         fired yet: HsmTimeout. Never a late answer.
    5  the handler  gateway/worker/      the answer is made, but the rest of the way (parsing, policy, the record)
                    handlers.py          took the time: KMS gets a refusal. This package cannot see that.

Look 1 has a sibling, gateway/worker/admission.py, and both are needed. That one sees the event loop, whose work is
the bottleneck while the HSM is fast, when no job waits here at all: of 4,000 requests at twice what a loop can do,
2,071 are answered in time with it and 398 without (a model: tests/gateway/test_overload.py). This one sees one HSM.
Without it, four times its load fills the worker with requests that wait out their deadline, calls that begin just
before it open the breaker, and of requests to *another* HSM 65 of 128 were served; with it, 142 of 146
(test_an_hsm_with_four_times_its_load_leaves_the_other_serving in tests/stress/test_several_hsms.py; to repeat,
make `if waiting:` in `Dispatcher.admit` false).

The states of a thread
======================
Derived from fields, since each has its own writer: `serves` and `stuck` (under the crew's lock), `job` (the
thread).

    state        serves  job   stuck   goes to                    when
    -----------  ------  ----  ------  -------------------------  --------------------------------------------------
    opening      no      -     -       idle                       its session is open (Crew.opened)
                                       ended                      it could not be opened, or is not wanted any more
    idle         yes     -     -       in a call                  it took a job
                                       ended                      the queue was closed and is empty (Crew.stop)
    in a call    yes     job   -       idle                       the call returned
                                       quarantined                look 2 found its job late (Crew.quarantine)
    quarantined  yes     job   job     idle                       the call returned, and nobody took its place
                                       ended                      the call returned after it was replaced
    ended        not in the crew: its session is closed, and its counts are kept

A thread that is quarantined is *replaced* by a new one with a new session (Crew.replace), as long as there are no
more than twice as many threads as sessions, and no more than the token has sessions for. Without that, as many hung
calls as there are sessions would end the service of an HSM that works otherwise. A thread that cannot be started,
or dies while it is opening, is tried again by the next probe that succeeds.

The breaker
===========
Closed, it lets everybody in. It is opened
    - by the crew, when as many calls are stuck as there are sessions: that is not one bad request, it is the module;
    - by the health monitor, when a probe fails or does not return for a second, while no other call returns either;
    - for good, by `Pkcs11Hsm.stop`.

Open, it refuses each caller at once with the fault it was opened for: KMS has its answer in a millisecond and not
after the deadline, and no thread is added to those that hang. Only a probe that succeeds closes it, so no request
is used to try whether the HSM is back. A refused login keeps it open: tokens lock after a few attempts.
"""
