"""What nodes say of themselves: the catalog version that they serve, their HSMs, their lease."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0005."""
    op.add_column("proxies", sa.Column("site", sa.String(64)))
    op.add_column("proxies", sa.Column("holdfast", sa.String(32)))
    op.add_column("proxies", sa.Column("lease_s", sa.Float))
    op.create_table(
        "worker_reports",
        sa.Column("proxy_id", sa.String(255), primary_key=True),
        sa.Column("worker", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("catalog_version", sa.BigInteger, nullable=False),
        sa.Column("hsms", sa.Text, nullable=False),
        sa.Column("holds_back", sa.String(512)),
    )
