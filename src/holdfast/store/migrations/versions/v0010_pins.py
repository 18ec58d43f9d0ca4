"""Which KMS keys an external key serves."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0009."""
    op.add_column("external_keys", sa.Column("pinned_to", sa.Text))
