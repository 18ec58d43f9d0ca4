"""JSON: the fields as the event log and the audit log have them, with what kind they are and who sends them."""

import msgspec

from holdfast.gateway.observe.event_log import ascii_only
from holdfast.gateway.outlets.message import Message

_ENCODER = msgspec.json.Encoder()


def render(message: Message) -> str:
    """One JSON object in printable ASCII."""
    fields = {"kind": message.kind.value, "node": message.node, "timestamp": message.time, **message.fields}
    return ascii_only(_ENCODER.encode(fields)).decode("ascii")
