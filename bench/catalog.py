"""What the size of the catalog costs: the start of a worker, a block, and requests while the catalog is read again.

No HSM and no sockets: the feed as a worker runs it, and an event loop that asks for the time every millisecond. Run
`python -m bench.catalog [KEYS ...]`; the default is 0, 10,000 and 100,000 keys in 100 keystores.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, func, insert, select, text
from tests.administered import Catalog

from holdfast.config.storage import EncryptionLimits
from holdfast.keys.budget import EncryptionBudget
from holdfast.store import schema
from holdfast.store.changes import fresh_tag
from holdfast.store.feed import CatalogFeed
from holdfast.store.memory import MemoryFile
from holdfast.store.nodes import Node, NodeReporter
from holdfast.store.records import begin_records
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

KEYSTORES = 100
SIZES = (0, 10_000, 100_000)
_BATCH = 5_000


def say(line: str) -> None:
    """A line of the result."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def now() -> datetime:
    """The time, for the catalog."""
    return datetime.now(UTC)


def fill(catalog: Catalog, keys: int) -> None:
    """So many keys more, evenly in KEYSTORES keystores."""
    for number in range(KEYSTORES):
        catalog.create_keystore(f"store-{number}", UriPathPrefix.parse(f"/store-{number}"))
    at = now()
    with catalog._changing() as connection:  # noqa: SLF001 (a transaction per key would take an hour)
        table = schema.keystores
        keystores = connection.execute(select(table.c.id).where(table.c.name.startswith("store-"))).scalars().all()
        first = connection.execute(select(func.coalesce(func.max(schema.key_generations.c.id), 0))).scalar_one() + 1
        for start in range(first, first + keys, _BATCH):
            numbers = range(start, min(start + _BATCH, first + keys))
            connection.execute(
                insert(schema.external_keys),
                [
                    {
                        "id": number,
                        "keystore_id": keystores[number % KEYSTORES],
                        "external_key_id": f"key-{number}",
                        "status": "ENABLED",
                        "takeover": False,
                        "created_at": at,
                        "tag": fresh_tag(),
                    }
                    for number in numbers
                ],
            )
            connection.execute(
                insert(schema.key_generations),
                [
                    {
                        "id": number,
                        "key_id": number,
                        "number": 1,
                        "hsm": "main",
                        "label": f"label-{number}",
                        "cka_id": number.to_bytes(16),
                        "encryptions_reserved": 0,
                        "created_at": at,
                        "state": "active",
                    }
                    for number in numbers
                ],
            )
        connection.execute(delete(schema.recorded_entries))
        begin_records(connection, at)


@contextmanager
def feed_of(directory: Path) -> Iterator[CatalogFeed]:
    """A worker's feed, not started."""
    catalog = Catalog.open(f"sqlite:///{directory}/catalog.db", directory / "secrets", now=now)
    budget = EncryptionBudget(
        catalog, EncryptionLimits(2**30, 2**31, 2**32), monotonic=time.monotonic, on_warning=say
    )
    feed = CatalogFeed(
        catalog,
        budget,
        node=NodeReporter(
            catalog,
            Node("bench", site=None, workers=1, lease=300.0),
            place=0,
            run="run",
            hsms=dict,
            holds_back=lambda: None,
        ),
        stale_limit=300.0,
        state=MemoryFile(directory / "seen"),
        monotonic=time.monotonic,
        on_warning=say,
        on_notice=lambda _: None,
    )
    try:
        yield feed
    finally:
        feed.stop()


async def latest(longest: list[float], until: Callable[[], bool]) -> float:
    """Seconds until a condition holds; the longest time that the event loop was kept from running."""
    start = before = time.perf_counter()
    while not until():
        await asyncio.sleep(0.001)
        after = time.perf_counter()
        longest.append(after - before - 0.001)
        before = after
    return time.perf_counter() - start


def measure(directory: Path) -> None:
    """One size."""
    with (
        closing(Catalog.open(f"sqlite:///{directory}/catalog.db", directory / "secrets", now=now)) as operator,
        feed_of(directory) as feed,
    ):
        start = time.perf_counter()
        feed.start()
        say(f"  start             {time.perf_counter() - start:6.3f} s")
        steps: list[tuple[str, Callable[[], None], Callable[[], bool]]] = [
            (
                "block",
                lambda: operator.set_blocked("store-7", blocked=True),
                lambda: feed.snapshot.keystores["/store-7"].blocked,
            ),
            (
                "register a key",
                lambda: operator.register_key("store-8", ExternalKeyId("new"), hsm="main", label="new"),
                lambda: "new" in feed.snapshot.keystores["/store-8"].keys,
            ),
            ("read everything", lambda: reread(operator), lambda: feed.snapshot.version == operator.version()),
        ]
        for what, change, until in steps:
            change()
            longest: list[float] = []
            seconds = asyncio.run(latest(longest, until))
            say(f"  {what:<17} {seconds:6.3f} s, event loop late by at most {max(longest, default=0) * 1000:5.1f} ms")


def reread(operator: Catalog) -> None:
    """Make every reader read everything, as the removal of a keystore does."""
    with operator._changing() as connection:  # noqa: SLF001 (nothing is removed)
        connection.execute(text("UPDATE catalog SET removed = version"))


def main() -> None:
    """Each size in a directory of its own."""
    for keys in map(int, sys.argv[1:] or SIZES):
        directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
        try:
            url = f"sqlite:///{directory}/catalog.db"
            with closing(Catalog.create_or_upgrade(url, directory / "secrets", now=now)) as catalog:
                fill(catalog, keys)
            say(f"{keys} keys in {KEYSTORES} keystores")
            measure(directory)
        finally:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
