"""One outlet: bounded, never waited for, and patient with a receiver that refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from tests.waiting import eventually

from holdfast.config.outlets import Destination, Outlet
from holdfast.gateway.outlets.message import Kind, Message
from holdfast.gateway.outlets.outlet import RESERVE, Buffered, Mark
from holdfast.gateway.outlets.transports import Refused

EVENT: dict[str, Any] = {"timestamp": "2026-11-05T18:24:20.123Z", "decision": "allow"}


class Receiver:
    """A transport whose receiver does what it is told for each attempt."""

    def __init__(self, answer: Callable[[Sequence[Message]], int]) -> None:
        self._answer = answer
        self.attempts = 0
        self.taken: list[Message] = []

    def open(self) -> None:
        """It is there."""

    def check(self) -> None:
        """It still is."""

    def close(self) -> None:
        """Nothing is to be done."""

    def send(self, messages: Sequence[Message], *, first: int) -> int:
        """What the answer takes."""
        assert first == len(self.taken)
        self.attempts += 1
        count = self._answer(messages)
        self.taken += messages[:count]
        return count


def outlet(receiver: Receiver, *, buffer: int = 100) -> Buffered:
    settings = Outlet(to=Destination.parse("udp://127.0.0.1:514", Path()), buffer=buffer)
    return Buffered("siem", settings, receiver, node="n", say=lambda _level, _text: None)


def event() -> Message:
    return Message.of_event(EVENT, node="n")


def ended(one: Buffered) -> None:
    one.end()
    one.thread.join(60)
    assert not one.thread.is_alive()


def test_a_receiver_that_refuses_for_ever_is_not_asked_without_a_pause() -> None:
    """Word of the loss is refused too: it is given again, later and later, and is no further loss."""
    asked = Event()

    def refuse(_: Sequence[Message]) -> int:
        asked.set()
        raise Refused("the receiver answers 400")

    receiver = Receiver(refuse)
    one = outlet(receiver)
    for _ in range(3):
        one.put(event())
    one.start()
    assert asked.wait(60)
    eventually(lambda: receiver.attempts >= 2, within=60)
    ended(one)
    assert one.report().lost == 3
    # 0.5 + 1 + 2 + ... seconds: within a minute some seven attempts.
    assert receiver.attempts < 12


def test_what_a_receiver_takes_in_part_is_sent_again_from_there() -> None:
    receiver = Receiver(lambda _: 1)
    one = outlet(receiver)
    for _ in range(5):
        one.put(event())
    one.start()
    eventually(lambda: len(receiver.taken) == 5, within=60)
    ended(one)
    assert (one.report().sent, one.report().waiting) == (5, 0)


def test_a_flood_of_events_takes_no_place_of_a_change() -> None:
    one = outlet(Receiver(len))
    for _ in range(300):
        one.put(event())
    assert one.report().lost == 200
    change = Message(Kind.CHANGE, "2026-11-05T18:24:20.123Z", event().severity, {"outcome": "applied"}, "n")
    put = 0
    while one.put_change(change, Mark(put + 1, str(put))):
        put += 1
    assert put == RESERVE - 1  # and word of the loss
    assert one.report().lost == 200


def test_messages_that_cannot_be_put_into_words_cost_only_themselves() -> None:
    failed = Event()

    def fail_once(messages: Sequence[Message]) -> int:
        if not failed.is_set():
            failed.set()
            raise KeyError("decision")
        return len(messages)

    receiver = Receiver(fail_once)
    one = outlet(receiver)
    one.put(event())
    one.start()
    eventually(lambda: [message.kind for message in receiver.taken] == [Kind.LOST], within=60)
    one.put(event())
    eventually(lambda: len(receiver.taken) == 2, within=60)
    ended(one)


def test_a_change_that_went_over_a_connection_that_then_broke_is_sent_again_and_an_event_is_not() -> None:
    receiver = Receiver(len)
    breaks = Event()

    def check() -> None:
        if len(receiver.taken) == 2 and not breaks.is_set():
            breaks.set()
            raise ConnectionResetError("the receiver has closed the connection")

    receiver.check = check  # type: ignore[method-assign]  # what the receiver does next
    one = outlet(receiver)
    change = Message(Kind.CHANGE, "2026-11-05T18:24:20.123Z", event().severity, {"outcome": "applied"}, "n")
    one.put(event())
    one.put_change(change, Mark(7, "7"))
    one.start()
    eventually(lambda: one.marked == Mark(7, "7"), within=60)
    ended(one)
    assert [message.kind for message in receiver.taken] == [Kind.REQUEST, Kind.CHANGE, Kind.CHANGE]
