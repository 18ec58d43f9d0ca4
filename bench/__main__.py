"""`python -m bench [--seconds N]`: prints the seven figures and the machine they come from."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from tests.server.proxy_server import ProxyServer

from bench import load, proxies

_console = Console(width=110, highlight=False)
_ROUNDS = 3
"""A figure is the median of so many runs."""


def main() -> None:
    """Every figure, in the order of the issue."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--seconds", type=int, default=4, help="length of one run")
    seconds = parser.parse_args().seconds
    _console.print(f"{_machine()}; each figure is the median of {_ROUNDS} runs of {seconds} s\n")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        directory = Path(name)
        raw = _raw_loop(directory, seconds)
        _throughput(directory, seconds, raw)
        _keys_on_the_token(directory, seconds)
        _slow_hsm(directory, seconds)
        _overload(directory, max(seconds, 5))
        _footprint(directory)
        _catalog(directory)


def _raw_loop(directory: Path, seconds: int) -> float:
    """CPU microseconds of one raw operation."""
    token = proxies.token_of(directory, 2)
    command = [sys.executable, "-m", "bench.raw", str(token), str(seconds)]
    runs = [
        msgspec.json.decode(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(_ROUNDS)
    ]
    rate = statistics.median(run["rate"] for run in runs)
    cpu: float = statistics.median(run["cpu_microseconds"] for run in runs)
    _console.print("[bold]1. Raw C_GenerateRandom + C_EncryptInit + C_Encrypt, one thread, SoftHSM")
    _console.print(f"   {rate:,.0f} operations/s, {cpu:.1f} us CPU each\n")
    return cpu


def _throughput(directory: Path, seconds: int, raw: float) -> None:
    table = Table("workers", "scheme", "connections", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "x raw")
    for workers in (1, 2):
        for tls in (False, True):
            with proxies.proxy(directory, f"throughput-{workers}-{tls}", workers=workers, tls=tls) as server:
                for connections in (1, 16, 64):
                    measured, cpu = _measure(server, connections, seconds)
                    table.add_row(
                        str(workers), "HTTPS" if tls else "HTTP", str(connections), f"{measured.rate:,.0f}",
                        f"{measured.p50 * 1e3:.2f}", f"{measured.p99 * 1e3:.2f}", f"{cpu:.0f}", f"{cpu / raw:.1f}",
                    )  # fmt: skip
    _console.print("[bold]2. Encrypt through the proxy, keep-alive connections, event log on (aim: at most 6 x raw)")
    _console.print(table, "")


def _keys_on_the_token(directory: Path, seconds: int) -> None:
    """The counts take turns, so that a noisy neighbour meets all of them."""
    counts = (2, 100, 1000)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    costs: dict[int, list[float]] = {count: [] for count in counts}
    for round_number in range(_ROUNDS):
        for count in counts:
            with proxies.proxy(directory, f"keys-{count}-{round_number}", keys=count, tls=False) as server:
                measured, cpu = _once(server, 16, seconds)
                rates[count].append(measured.rate)
                costs[count].append(cpu)
    table = Table("keys on the token", "requests/s", "CPU us/request", "CPU against 2 keys")
    base = statistics.median(costs[2])
    for count in counts:
        cost = statistics.median(costs[count])
        table.add_row(str(count), f"{statistics.median(rates[count]):,.0f}", f"{cost:.0f}", f"{cost / base - 1:+.1%}")
    _console.print("[bold]3. Keys on the token: 1 worker, HTTP, 16 connections (aim: within 5 %)")
    _console.print(table, "")


def _slow_hsm(directory: Path, seconds: int) -> None:
    sessions, delay = 32, 20
    _console.print(f"[bold]4. {delay} ms in each C_Encrypt, {sessions} sessions (aim: at least 95 % of the ideal)")
    with proxies.proxy(directory, "slow", personality="plain", tls=False, hsm={"sessions": sessions}) as server:
        assert server.shim is not None
        # IVs come in bulk, so only C_Encrypt counts.
        server.shim.delay(delay, functions=("C_Encrypt",))
        measured = statistics.median(
            (_once(server, 2 * sessions, seconds)[0].rate for _ in range(_ROUNDS)),
        )
    ideal = sessions / (delay / 1000)
    _console.print(f"   {measured:,.0f} requests/s of {ideal:,.0f} ideal: {measured / ideal:.1%}\n")


def _overload(directory: Path, seconds: int) -> None:
    sessions, delay = 4, 5
    with (
        proxies.proxy(directory, "overload", personality="plain", tls=False, hsm={"sessions": sessions}) as server,
        server.caller() as caller,
    ):
        assert server.shim is not None
        server.shim.delay(delay, functions=("C_Encrypt",))
        peak = _once(server, 2 * sessions, seconds)[0].rate
        offered = load.open_loop(
            caller, server.url, rate=int(4 * peak), clients=400, seconds=seconds, directory=server.directory
        )
    table = Table("", "answers/s", "p50 ms", "p99 ms", "maximum ms")
    for name, latencies in (("accepted", offered.accepted), ("refused", offered.refused)):
        table.add_row(
            name, f"{len(latencies) / offered.duration:,.0f}",
            *(f"{value * 1e3:.1f}" for value in (
                load.percentile(latencies, 50), load.percentile(latencies, 99), max(latencies)
            )),
        )  # fmt: skip
    kept = len(offered.accepted) / offered.duration / peak
    _console.print(
        f"[bold]5. Offered 4 x {peak:,.0f}/s, the peak at {delay} ms per C_Encrypt and {sessions} sessions"
    )
    _console.print("   (aims: accepted within 250 ms, refused within 50 ms, at least 90 % of the peak)")
    _console.print(table, f"   {kept:.1%} of the peak was served\n")


def _footprint(directory: Path) -> None:
    starts = [proxies.cold_start(directory, f"start-{number}") for number in range(_ROUNDS)]
    with proxies.proxy(directory, "memory", workers=2) as server:
        _once(server, 64, 3)
        resident = proxies.resident_megabytes(server)
    _console.print("[bold]6. Footprint")
    _console.print(f"   {max(resident):.0f} MB resident per worker, after load over 64 HTTPS connections")
    _console.print(f"   {statistics.median(starts):.2f} s from start to the first Encrypt answered\n")


def _catalog(directory: Path) -> None:
    """The sizes take turns, so that a noisy neighbour meets all of them."""
    sizes = (0, 10_000, 100_000)
    runs: dict[int, list[tuple[float, ...]]] = {keys: [] for keys in sizes}
    for number in range(_ROUNDS):
        for keys in sizes:
            runs[keys].append(proxies.start_and_block(directory, f"catalog-{keys}-{number}", keys=keys))
    table = Table(
        "keys in the catalog", "start to the first Encrypt, s", "CPU until then, s", "block to a refusal, s"
    )
    for keys in sizes:
        table.add_row(f"{keys:,}", *(f"{statistics.median(column):.2f}" for column in zip(*runs[keys], strict=True)))
    _console.print("[bold]7. Keys in the catalog, 1 worker, HTTPS")
    _console.print(table, "")


def _measure(server: ProxyServer, connections: int, seconds: int) -> tuple[load.Measured, float]:
    """The run with the median rate, and its CPU microseconds per request."""
    runs = [_once(server, connections, seconds) for _ in range(_ROUNDS)]
    return sorted(runs, key=lambda run: run[0].rate)[_ROUNDS // 2]


def _once(server: ProxyServer, connections: int, seconds: int) -> tuple[load.Measured, float]:
    meter = proxies.Meter(server)
    with server.caller() as caller:
        load.closed_loop(caller, server.url, connections=connections, seconds=1)
        meter.start()
        measured = load.closed_loop(caller, server.url, connections=connections, seconds=seconds)
        cpu = meter.seconds()
    if measured.refused or measured.broken:
        _console.print(f"   [red]{measured.refused} refused, {measured.broken} broken of {measured.requests}")
    return measured, cpu / measured.requests * 1e6


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    version = subprocess.run(
        ["softhsm2-util", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return (
        f"{os.cpu_count()} cores {names[0] if names else platform.machine()}, shared with the load generator; "
        f"Python {platform.python_version()}, SoftHSM {version}"
    )


if __name__ == "__main__":
    main()
