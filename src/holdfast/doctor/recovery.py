"""Doctor on recoverability: whether another HSM than the one that serves has every key."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from holdfast.config.model import Configuration
from holdfast.control.drills import WITHOUT_KEY
from holdfast.finding import Finding, note, ok, warning
from holdfast.store.drills import DrilledRow
from holdfast.store.reads import KeyRow

_SUBJECT = "drill"
_WHY = "Whether these keys can be restored is known when an HSM has opened them that is not the one that serves."
_REMEDY = "`holdfast key drill --hsm NAME` opens them in a standby HSM or a restored backup."


def examine_recovery(
    configuration: Configuration, keys: Sequence[KeyRow], drilled: Sequence[DrilledRow], now: datetime
) -> Iterator[Finding]:
    """Findings on generations that no drill of another HSM has opened, or none for long. `keys`: every generation."""
    wanted = [row for row in keys if row.state not in WITHOUT_KEY]
    last = _last_opened({row.generation_id: row.hsm for row in wanted}, drilled)
    missing = [row for row in wanted if row.generation_id not in last]
    days = configuration.drill.every_days
    if days is None:
        if missing and (drilled or len(configuration.serving) < len(configuration.hsms)):
            yield note("drill-missing", _SUBJECT, f"no drill has opened {_named(missing)}", why=_WHY, remedy=_REMEDY)
        return
    old = [row for row in wanted if last.get(row.generation_id, now) < now - timedelta(days=days)]
    if missing:
        yield warning("drill-missing", _SUBJECT, f"no drill has opened {_named(missing)}", why=_WHY, remedy=_REMEDY)
    if old:
        said = f"the last drill that opened {_named(old)} was more than {days} days ago"
        yield warning("drill-old", _SUBJECT, said, why=_WHY, remedy=_REMEDY)
    if wanted and not missing and not old:
        yield ok("drill", _SUBJECT, f"another HSM has opened every generation within the last {days} days")


def _last_opened(serving: Mapping[int, str], drilled: Sequence[DrilledRow]) -> dict[int, datetime]:
    """When an HSM that does not serve a generation last opened it, by its row. `serving`: which HSM does."""
    last: dict[int, datetime] = {}
    for one in drilled:
        if one.opened_at is not None and one.hsm != serving.get(one.generation_id, one.hsm):
            last[one.generation_id] = max(one.opened_at, last.get(one.generation_id, one.opened_at))
    return last


def _named(rows: Sequence[KeyRow]) -> str:
    first = f"{rows[0].keystore}/{rows[0].external_key_id} generation {rows[0].generation}"
    count = len(rows)
    return f"{count} generation{'' if count == 1 else 's'} ({first}{'' if count == 1 else ' and others'})"
