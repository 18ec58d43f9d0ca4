"""The record of changes, those who ask for and approve them, and ends of blocks and of enabled keys."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0003."""
    moment = sa.DateTime(timezone=True)
    op.add_column("keystores", sa.Column("blocked_until", moment))
    op.add_column("external_keys", sa.Column("enabled_until", moment))
    op.create_table(
        "changes",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("time", moment, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("logged", moment),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_id", "changes", ["id"])
    op.create_index("ix_changes_logged", "changes", ["logged"])
    op.create_table(
        "operators",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("roles", sa.String(256), nullable=False),
        sa.Column("public_key", sa.String(4096)),
        sa.Column("enrolled_at", moment, nullable=False),
    )
    op.create_table(
        "rules",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16)),
    )
    op.create_table(
        "approvals",
        sa.Column("request_id", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("operator", sa.String(64), primary_key=True),
        sa.Column("time", moment, nullable=False),
        sa.Column("public_key", sa.String(4096), nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
    )
