"""What workers say of generations that are to encrypt next."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0004."""
    op.add_column("key_generations", sa.Column("looks", sa.Integer, nullable=False, server_default=sa.text("'0'")))
    op.add_column("proxies", sa.Column("workers", sa.Integer))
    op.create_table(
        "generation_reports",
        sa.Column("generation_id", sa.Integer, sa.ForeignKey("key_generations.id"), primary_key=True),
        sa.Column("proxy_id", sa.String(255), primary_key=True),
        sa.Column("worker", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("looks", sa.Integer, nullable=False),
        sa.Column("fault", sa.String(1024)),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
    )
