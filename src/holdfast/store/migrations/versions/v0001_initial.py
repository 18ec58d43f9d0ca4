"""The first tables: keystores, credentials, external keys and their generations, proxies."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From nothing."""
    catalog = op.create_table(
        "catalog",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.bulk_insert(catalog, [{"id": 1, "version": 1}])
    op.create_table(
        "keystores",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("prefix", sa.String(117), nullable=False, unique=True),
        sa.Column("region", sa.String(32)),
        sa.Column("blocked", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("access_key_id", sa.String(30), primary_key=True),
        sa.Column("keystore_id", sa.Integer, sa.ForeignKey("keystores.id"), nullable=False),
        sa.Column("secret_ref", sa.String(1024), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("retired_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_credentials_keystore_id", "credentials", ["keystore_id"])
    op.create_table(
        "external_keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("keystore_id", sa.Integer, sa.ForeignKey("keystores.id"), nullable=False),
        sa.Column("external_key_id", sa.String(128), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("takeover", sa.Boolean, nullable=False),
        sa.Column("takeover_metadata", sa.LargeBinary),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("keystore_id", "external_key_id"),
        sa.CheckConstraint("status IN ('ENABLED', 'DISABLED')", name="status"),
    )
    op.create_table(
        "key_generations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key_id", sa.Integer, sa.ForeignKey("external_keys.id"), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hsm", sa.String(64), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("cka_id", sa.LargeBinary),
        sa.Column("encryptions_reserved", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("key_id", "number"),
        sa.CheckConstraint("number BETWEEN 1 AND 4294967295", name="number"),
    )
    op.create_table(
        "proxies",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
    )
