"""The catalog's tables. `migrations/` makes them; a test holds both together."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from holdfast.keys.description import Purpose
from holdfast.keys.states import GenerationState

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class Utc(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite knows no time zones, so there the zone is dropped and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware times only: `astimezone` would take a naive one for local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the catalog stores aware times only")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The stored time, aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


USES = ("encrypt", "decrypt", "refusal")
"""What is counted of a generation's use."""

catalog = Table(
    "catalog",
    METADATA,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False, server_default="0"),
)
"""One row. `version` grows with every change to what a Snapshot holds, in the change's own transaction.

`removed` is the version that last removed a row: a reader that is older must read everything. `changed` in the other
tables is the version that last changed the row.
"""


def _changed() -> Column[int]:
    return Column("changed", BigInteger, nullable=False, server_default="0", index=True)


keystores = Table(
    "keystores",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("prefix", String(117), nullable=False, unique=True),
    Column("region", String(32)),
    Column("blocked", Boolean, nullable=False),
    Column("blocked_until", Utc),
    Column("created_at", Utc, nullable=False),
    _changed(),
)
"""`blocked_until`: when a block ends by itself; NULL: never."""

credentials = Table(
    "credentials",
    METADATA,
    Column("access_key_id", String(30), primary_key=True),
    Column("keystore_id", ForeignKey("keystores.id"), nullable=False, index=True),
    Column("secret_ref", String(1024), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("last_used_at", Utc),
    Column("retired_at", Utc),
    _changed(),
)
"""Spec, Appendix A: an access key id names one secret on the whole proxy, so it is the primary key."""

external_keys = Table(
    "external_keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("keystore_id", ForeignKey("keystores.id"), nullable=False),
    Column("external_key_id", String(128), nullable=False),
    Column("status", String(8), CheckConstraint("status IN ('ENABLED', 'DISABLED')", name="status"), nullable=False),
    Column("enabled_until", Utc),
    Column("pinned_to", Text),
    Column("takeover", Boolean, nullable=False),
    Column("takeover_metadata", LargeBinary),
    Column("created_at", Utc, nullable=False),
    _changed(),
    Column("tag", LargeBinary),
    Column("metadata_format", Integer, nullable=False, server_default="1"),
    Column("purpose", String(16), nullable=False, server_default=Purpose.XKS_GCM.value),
    Column("owner", String(128)),
    Column("description", String(512)),
    Column("external_reference", String(256)),
    Column("originator_days", Integer),
    Column("recipient_days", Integer),
    UniqueConstraint("keystore_id", "external_key_id"),
)
"""`tag` stands in ciphertexts of `metadata_format` 2 (`holdfast.xks.aad`). Every key has one.

`enabled_until`: when an enabled key counts as disabled again; NULL: never. `pinned_to`: the ARNs of the KMS keys that
it serves, with a space between each two; NULL: every one. From `owner` on, what people say of the key
(`holdfast.keys.description`): no snapshot has it.
"""

key_tags = Table(
    "key_tags",
    METADATA,
    Column("key_id", ForeignKey("external_keys.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
)
"""What people sort keys by. Not the tag that ciphertexts carry."""

_IS_ACTIVE = text(f"state = '{GenerationState.ACTIVE}'")

key_generations = Table(
    "key_generations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("key_id", ForeignKey("external_keys.id"), nullable=False),
    Column("number", BigInteger, CheckConstraint("number BETWEEN 1 AND 4294967295", name="number"), nullable=False),
    Column("hsm", String(64), nullable=False),
    Column("label", String(255), nullable=False, index=True),
    Column("cka_id", LargeBinary),
    Column(
        "encryptions_reserved",
        BigInteger,
        CheckConstraint("encryptions_reserved >= 0", name="reserved"),
        nullable=False,
    ),
    Column("created_at", Utc, nullable=False),
    Column("canary", LargeBinary),
    Column("stopped_at", Utc),
    Column("stopped_reason", String(1024)),
    Column("token_serial", String(64)),
    _changed(),
    Column(
        "state",
        String(16),
        CheckConstraint(f"state IN ({', '.join(repr(state.value) for state in GenerationState)})", name="state"),
        nullable=False,
        server_default=GenerationState.PLANNED.value,
    ),
    Column("state_since", Utc),
    Column("activated_at", Utc),
    Column("compromised_at", Utc),
    Column("destroy_after", Utc),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("attributes", Text),
    Column("check_value", LargeBinary),
    Column("world", String(64)),
    UniqueConstraint("key_id", "number"),
)
"""`activated_at`: when it first became active. `destroy_after`: when the waiting period of `destroy-pending` ends.
`looks`: how often nodes were asked to look for the HSM key. `attributes` (JSON), `check_value` and `world`: what was
seen of the HSM key when it was registered (`holdfast.keys.proof`).
"""

Index("ix_one_active", key_generations.c.key_id, unique=True, sqlite_where=_IS_ACTIVE, postgresql_where=_IS_ACTIVE)

proxies = Table(
    "proxies",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("last_seen", Utc, nullable=False),
    Column("metadata_format", Integer),
    Column("workers", Integer),
    Column("site", String(64)),
    Column("holdfast", String(32)),
    Column("lease_s", Float),
)
"""The nodes. `metadata_format`: the newest format of ciphertext metadata that it reads, NULL: 1. `workers`: how many
it has. `holdfast`: its version. `lease_s`: how long it serves what it last read."""

worker_reports = Table(
    "worker_reports",
    METADATA,
    Column("proxy_id", String(255), primary_key=True),
    Column("worker", Integer, primary_key=True, autoincrement=False),
    Column("run", String(32), nullable=False),
    Column("reported_at", Utc, nullable=False),
    Column("catalog_version", BigInteger, nullable=False),
    Column("hsms", Text, nullable=False),
    Column("holds_back", String(512)),
)
"""What a worker, by its place in the node, serves. `run` is its process's own id."""

generation_reports = Table(
    "generation_reports",
    METADATA,
    Column("generation_id", ForeignKey("key_generations.id"), primary_key=True),
    Column("proxy_id", String(255), primary_key=True),
    Column("worker", Integer, primary_key=True, autoincrement=False),
    Column("looks", Integer, nullable=False),
    Column("fault", String(1024)),
    Column("reported_at", Utc, nullable=False),
)
"""Whether a worker, by its place, has opened the canary of a ready generation; `fault`: why it has not."""

usage_tracking = Table(
    "usage_tracking",
    METADATA,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("since", Utc, nullable=False),
    Column("lost", BigInteger, nullable=False, server_default="0"),
    Column("lost_at", Utc),
)
"""One row: since when use is recorded here, and how many requests are missing from it."""

key_usage = Table(
    "key_usage",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("generation_id", ForeignKey("key_generations.id", ondelete="CASCADE"), nullable=False),
    Column("kms_key_arn", String(256), nullable=False),
    *(Column(f"{what}s", BigInteger, nullable=False, server_default="0") for what in USES),
    *(Column(f"{end}_{what}", Utc) for what in USES for end in ("first", "last")),
    Column("callers_left_out", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("generation_id", "kms_key_arn"),
)
"""What a KMS key asked of a generation. An empty ARN: KMS keys beyond the first ones, and what is no ARN.

`callers_left_out`: how often a caller was forgotten because there were too many.
"""

key_usage_days = Table(
    "key_usage_days",
    METADATA,
    Column("usage_id", ForeignKey("key_usage.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    *(Column(f"{what}s", BigInteger, nullable=False, server_default="0") for what in USES),
)
"""The same by day, which is counted from 1970-01-01 in UTC."""

key_usage_callers = Table(
    "key_usage_callers",
    METADATA,
    Column("usage_id", ForeignKey("key_usage.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(9), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("first_seen", Utc, nullable=False),
    Column("last_seen", Utc, nullable=False),
)
"""Who asked: `kind` is `principal` (without the name of its session) or `service`."""

drills = Table(
    "drills",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("change_id", String(32), nullable=False),
    Column("hsm", String(64), nullable=False),
    Column("token_serial", String(64), nullable=False),
    Column("time", Utc, nullable=False),
    Column("opened", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
)
"""How many generations an HSM had each time that somebody looked, and how many not."""

drill_results = Table(
    "drill_results",
    METADATA,
    Column("generation_id", ForeignKey("key_generations.id", ondelete="CASCADE"), primary_key=True),
    Column("hsm", String(64), primary_key=True),
    Column("token_serial", String(64), primary_key=True),
    Column("time", Utc, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", String(255), nullable=False),
    Column("opened_at", Utc),
)
"""What the last drill of a token found of a generation. `opened_at`: when it last opened there, NULL: never."""

attestations = Table(
    "attestations",
    METADATA,
    Column("generation_id", ForeignKey("key_generations.id", ondelete="CASCADE"), primary_key=True),
    Column("hsm", String(64), primary_key=True),
    Column("token_serial", String(64), primary_key=True),
    Column("label", String(255), nullable=False),
    Column("cka_id", LargeBinary),
    Column("looked_at", Utc),
    Column("change_id", String(32), nullable=False),
)
"""From where a destroyed generation is gone. `looked_at` NULL: a person said that the token exists no more."""

changes = Table(
    "changes",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", String(32), nullable=False, index=True),
    Column("time", Utc, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("record", Text, nullable=False),
    Column("logged", Utc, index=True),
    sqlite_autoincrement=True,
)
"""What became of each change, in the transaction that made it: `record` is a leaf of the audit log.

It is also the way there: `logged` is when the log had it, NULL until then. `number` is the order of the commits, as
every row is written under the lock of the catalog's own row.
"""

recorded_entries = Table(
    "recorded_entries",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("content", Text, nullable=False),
)
"""The rows of keystores, live credentials and keys as recorded changes have left them (`entries.py`)."""

operators = Table(
    "operators",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("roles", String(256), nullable=False),
    Column("public_key", String(4096)),
    Column("enrolled_at", Utc, nullable=False),
)
"""Who may ask for changes and approve them. `roles` are separated by spaces, `public_key` is an SSH key."""

rules = Table(
    "rules",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("content", Text, nullable=False),
)
"""`approval`: which changes need others (TOML). `authorization`: what a role may do (Cedar)."""

requests = Table(
    "requests",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("plan", Text, nullable=False),
    Column("outcome", String(16)),
)
"""Changes that need approval. `plan` is the document whose digest approvals sign; `outcome` NULL: undecided."""

approvals = Table(
    "approvals",
    METADATA,
    Column("request_id", ForeignKey("requests.id"), primary_key=True),
    Column("operator", String(64), primary_key=True),
    Column("time", Utc, nullable=False),
    Column("public_key", String(4096), nullable=False),
    Column("signature", Text, nullable=False),
)
