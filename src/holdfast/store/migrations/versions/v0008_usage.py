"""Who has used which generation for what, and when."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0007."""
    moment = sa.DateTime(timezone=True)
    tracking = op.create_table(
        "usage_tracking",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False
        ),
        sa.Column("since", moment, nullable=False),
        sa.Column("lost", sa.BigInteger, nullable=False, server_default=sa.text("'0'")),
        sa.Column("lost_at", moment),
    )
    op.execute(sa.insert(tracking).values(id=1, since=sa.func.current_timestamp(), lost=0))
    op.create_table(
        "key_usage",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "generation_id", sa.Integer, sa.ForeignKey("key_generations.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("kms_key_arn", sa.String(256), nullable=False),
        *_counts(),
        sa.Column("first_encrypt", moment),
        sa.Column("last_encrypt", moment),
        sa.Column("first_decrypt", moment),
        sa.Column("last_decrypt", moment),
        sa.Column("first_refusal", moment),
        sa.Column("last_refusal", moment),
        sa.Column("callers_left_out", sa.BigInteger, nullable=False, server_default=sa.text("'0'")),
        sa.UniqueConstraint("generation_id", "kms_key_arn"),
    )
    op.create_table(
        "key_usage_days",
        _usage_id(),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        *_counts(),
    )
    op.create_table(
        "key_usage_callers",
        _usage_id(),
        sa.Column("kind", sa.String(9), primary_key=True),
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("first_seen", moment, nullable=False),
        sa.Column("last_seen", moment, nullable=False),
    )


def _usage_id() -> "sa.Column[int]":
    return sa.Column("usage_id", sa.Integer, sa.ForeignKey("key_usage.id", ondelete="CASCADE"), primary_key=True)


def _counts() -> "list[sa.Column[int]]":
    return [
        sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("'0'"))
        for name in ("encrypts", "decrypts", "refusals")
    ]
