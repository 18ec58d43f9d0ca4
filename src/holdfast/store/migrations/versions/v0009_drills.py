"""Drills of standby HSMs and backups, and from where destroyed generations are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0008."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "drills",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("change_id", sa.String(32), nullable=False),
        sa.Column("hsm", sa.String(64), nullable=False),
        sa.Column("token_serial", sa.String(64), nullable=False),
        sa.Column("time", moment, nullable=False),
        sa.Column("opened", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
    )
    op.create_table(
        "drill_results",
        sa.Column(
            "generation_id", sa.Integer, sa.ForeignKey("key_generations.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("hsm", sa.String(64), primary_key=True),
        sa.Column("token_serial", sa.String(64), primary_key=True),
        sa.Column("time", moment, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.String(255), nullable=False),
        sa.Column("opened_at", moment),
    )
    op.create_table(
        "attestations",
        sa.Column(
            "generation_id", sa.Integer, sa.ForeignKey("key_generations.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("hsm", sa.String(64), primary_key=True),
        sa.Column("token_serial", sa.String(64), primary_key=True),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("cka_id", sa.LargeBinary),
        sa.Column("looked_at", moment),
        sa.Column("change_id", sa.String(32), nullable=False),
    )
