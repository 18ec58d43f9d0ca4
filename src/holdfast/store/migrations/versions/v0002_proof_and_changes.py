"""What proves and stops a key, and which rows changed since a version.

A count of encryptions below zero was never written by Holdfast. It becomes 0, and its key is stopped until a person
says how many encryptions it has made.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEGATIVE = "its count of encryptions was below zero in the catalog: how many it has made is not known"


def upgrade() -> None:
    """From 0001."""
    op.add_column("catalog", sa.Column("removed", sa.BigInteger, nullable=False, server_default="0"))
    for table in ("keystores", "credentials", "external_keys"):
        op.add_column(table, sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"))
        op.create_index(f"ix_{table}_changed", table, ["changed"])
    for column in (
        sa.Column("canary", sa.LargeBinary),
        sa.Column("stopped_at", sa.DateTime(timezone=True)),
        sa.Column("stopped_reason", sa.String(1024)),
        sa.Column("token_serial", sa.String(64)),
        sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"),
    ):
        op.add_column("key_generations", column)
    generations = sa.table(
        "key_generations",
        sa.column("encryptions_reserved", sa.BigInteger),
        sa.column("stopped_at", sa.DateTime(timezone=True)),
        sa.column("stopped_reason", sa.String),
    )
    op.execute(
        generations.update()
        .where(generations.c.encryptions_reserved < 0)
        .values(encryptions_reserved=0, stopped_at=sa.func.current_timestamp(), stopped_reason=_NEGATIVE)
    )
    with op.batch_alter_table("key_generations") as batch:
        batch.create_check_constraint("reserved", "encryptions_reserved >= 0")
    op.create_index("ix_key_generations_changed", "key_generations", ["changed"])
    op.create_index("ix_key_generations_label", "key_generations", ["label"])
