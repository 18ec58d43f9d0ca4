"""The queue between the event loop and the HSM threads."""

from threading import Thread

from tests.waiting import PATIENCE

from holdfast.hsm.pkcs11.pool.handover import JobQueue, Waiter


def jobs(count: int) -> list[object]:
    """The queue never looks inside a job."""
    return [object() for _ in range(count)]


def takers(queue: JobQueue[object], count: int, taken: list[object]) -> list[Thread]:
    def work() -> None:
        waiter = Waiter()
        while (job := queue.take(waiter, before_sleep=lambda: None)) is not None:
            taken.append(job)

    threads = [Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_each_job_is_taken_once_however_few_threads_are_woken() -> None:
    """A put that meets a thread on its way to sleep is not lost: 2,000 puts of one job, each waking one thread."""
    queue, sent = JobQueue[object](), jobs(2000)
    taken: list[object] = []
    threads = takers(queue, 4, taken)
    for job in sent:
        queue.put([job], wake=1)
    queue.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(taken) == len(sent)
    assert set(taken) == set(sent)


def test_jobs_are_taken_in_the_order_in_which_they_came() -> None:
    queue, sent = JobQueue[object](), jobs(100)
    taken: list[object] = []
    queue.put(sent, wake=1)
    queue.close()
    (thread,) = takers(queue, 1, taken)
    thread.join(PATIENCE)
    assert taken == sent


def test_close_ends_the_threads_that_sleep() -> None:
    queue = JobQueue[object]()
    threads = takers(queue, 3, [])
    queue.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_before_sleep_is_called_when_the_queue_runs_empty() -> None:
    queue = JobQueue[object]()
    called: list[int] = []
    queue.put(jobs(2), wake=1)
    waiter = Waiter()

    def before_sleep() -> None:
        called.append(len(queue))
        queue.close()

    for _ in range(3):
        queue.take(waiter, before_sleep=before_sleep)
    assert called == [0]
