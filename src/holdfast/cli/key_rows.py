"""External keys and their generations, as documents and for people."""

from collections.abc import Mapping
from typing import Any

from holdfast.store.reads import KeyRow


def key_row(row: KeyRow, totals: Mapping[int, int]) -> dict[str, Any]:
    """An external key with its active generation. `totals`: encryptions by the generation's row."""
    said, takeover = row.description, row.takeover
    return {
        "keystore": row.keystore,
        "external_key_id": row.external_key_id,
        "status": row.status,
        "enabled_until": row.enabled_until,
        "pinned_to": list(row.pinned_to) or None,
        "generation": row.generation,
        "state": row.state,
        "hsm": row.hsm,
        "label": row.label,
        "cka_id": row.cka_id.hex() if row.cka_id else None,
        "tag": row.tag.hex(),
        "metadata_format": row.metadata_format,
        "takeover": None if takeover is None else "aws-sample",
        "encryptions_at_most": totals.get(row.generation_id, 0),
        "stopped": row.stopped,
        "has_canary": row.canary is not None,
        "token_serial": row.token_serial,
        "created_at": row.created_at,
        "purpose": said.purpose,
        "owner": said.owner,
        "description": said.description,
        "external_reference": said.external_reference,
        "tags": dict(said.tags),
        "cryptoperiod_days": said.cryptoperiod.originator,
        "recipient_period_days": said.cryptoperiod.recipient,
        **_seen(row),
    }


def generation_row(row: KeyRow, totals: Mapping[int, int]) -> dict[str, Any]:
    """One generation."""
    return {
        "generation": row.generation,
        "state": row.state,
        "state_since": row.state_since,
        "activated_at": row.activated_at,
        "compromised_at": row.compromised_at,
        "destroy_after": row.destroy_after,
        "hsm": row.hsm,
        "label": row.label,
        "cka_id": row.cka_id.hex() if row.cka_id else None,
        "encryptions_at_most": totals.get(row.generation_id, 0),
        "stopped": row.stopped,
        "has_canary": row.canary is not None,
        "token_serial": row.token_serial,
        "created_at": row.created_at,
        **_seen(row),
    }


def _seen(row: KeyRow) -> dict[str, Any]:
    period = row.description.cryptoperiod
    return {
        "encrypts_until": period.encrypts_until(row.activated_at),
        "decrypts_until": period.decrypts_until(row.activated_at),
        "attributes": None if row.attributes is None else dict(row.attributes),
        "check_value": row.check_value.hex() if row.check_value else None,
        "world": row.world,
    }


def in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    """A document's fields for a person: what has parts is one text."""
    return {name: _flat(value) if isinstance(value, dict) else value for name, value in row.items()}


def _flat(parts: Mapping[str, Any]) -> str:
    return (
        ", ".join(
            f"{name}={str(value).lower() if value in (True, False) else value}" for name, value in parts.items()
        )
        or "-"
    )
