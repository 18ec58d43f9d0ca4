"""What tests run in other processes. Each child gets its catalog by URL, as a worker does."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import ID, SECRET

from holdfast.store.credentials import CredentialChanges

JOIN = 60


def run(target: Callable[..., None], *arguments: Any, times: int) -> list[int | None]:
    """Run `target` in so many processes at once; their exit codes."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=target, args=arguments) for _ in range(times)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(JOIN)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def create(url: str, secrets: Path) -> None:
    Catalog.create_or_upgrade(url, secrets, now=now).close()


def reserve(url: str, secrets: Path, generation_id: int, count: int, times: int) -> None:
    with closing(Catalog.open(url, secrets, now=now)) as catalog:
        for _ in range(times):
            catalog.reserve_encryptions(generation_id, count)


def die_between_file_and_row(url: str, secrets: Path) -> None:
    """Issue a credential, and be killed when its secret is on the disk and its row is not yet committed."""
    catalog = Catalog.open(url, secrets, now=now)
    CredentialChanges._insert = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign] # the crash
    catalog.issue_credential("main", (ID, SECRET))
