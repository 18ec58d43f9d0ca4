"""A worker's lines on their way to the process of the outlets: never waiting, bounded, counted."""

import socket

import msgspec

from holdfast.gateway.observe.outlet_feed import CAPACITY, OutletFeed
from holdfast.gateway.supervisor.emitting import EventChannel

LINE = b'{"decision":"allow","detail":"%b"}\n' % (b"x" * 1000)


def received(channel: EventChannel) -> list[bytes]:
    """Every line that has arrived."""
    lines: list[bytes] = []
    while True:
        try:
            lines += channel.receiver.recv(65_536, socket.MSG_DONTWAIT).splitlines(keepends=True)
        except BlockingIOError:
            return lines


def test_a_socket_that_nobody_reads_holds_up_nothing_and_what_is_lost_is_told_in_its_place() -> None:
    channel = EventChannel()
    feed = OutletFeed(channel.sender, worker=3)
    for _ in range(4 * CAPACITY // 100):
        feed.offer([LINE] * 100)
        feed.flush()
    assert feed.lost > 0
    before = received(channel)
    while feed.has_waiting:
        feed.flush()
        before += received(channel)
    told = [msgspec.json.decode(line) for line in before if line != LINE]
    assert told == [{"lost": feed.lost, "worker": 3}]
    assert before[-1] != LINE
    assert before.count(LINE) + feed.lost == 4 * CAPACITY
    channel.close()


def test_a_line_that_is_longer_than_a_message_is_lost_alone() -> None:
    channel = EventChannel()
    feed = OutletFeed(channel.sender, worker=1)
    feed.offer([LINE, b"x" * 70_000 + b"\n", LINE])
    feed.flush()
    assert received(channel) == [LINE, LINE, b'{"lost":1,"worker":1}\n']
    channel.close()


def test_the_end_waits_half_a_second_at_most_and_says_what_is_left() -> None:
    channel = EventChannel()
    feed = OutletFeed(channel.sender, worker=1)
    for _ in range(CAPACITY // 100):
        feed.offer([LINE] * 100)
        feed.flush()
    left = feed.close()
    assert left > 0
    assert left == CAPACITY - len(received(channel))
    channel.close()
