"""What people say of a key, and what was seen of its HSM keys."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0006."""
    purpose = sa.Column("purpose", sa.String(16), nullable=False, server_default=sa.text("'xks-gcm'"))
    op.add_column("external_keys", purpose)
    op.add_column("external_keys", sa.Column("owner", sa.String(128)))
    op.add_column("external_keys", sa.Column("description", sa.String(512)))
    op.add_column("external_keys", sa.Column("external_reference", sa.String(256)))
    op.add_column("external_keys", sa.Column("originator_days", sa.Integer))
    op.add_column("external_keys", sa.Column("recipient_days", sa.Integer))
    op.add_column("key_generations", sa.Column("attributes", sa.Text))
    op.add_column("key_generations", sa.Column("check_value", sa.LargeBinary))
    op.add_column("key_generations", sa.Column("world", sa.String(64)))
    op.create_table(
        "key_tags",
        sa.Column("key_id", sa.Integer, sa.ForeignKey("external_keys.id"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
