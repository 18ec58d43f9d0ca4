"""States of key generations, and the tags that ciphertexts of format 2 carry.

Until now the generation with the highest number encrypted and the others decrypted. Keys go on in format 1 until a
person says that no older Holdfast must read what they encrypt (`holdfast key upgrade`).
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATES = ["planned", "ready", "active", "retired", "suspended", "compromised", "destroy-pending", "destroyed"]


def upgrade() -> None:
    """From 0002."""
    op.add_column("external_keys", sa.Column("tag", sa.LargeBinary))
    op.add_column(
        "external_keys", sa.Column("metadata_format", sa.Integer, nullable=False, server_default=sa.text("'1'"))
    )
    op.add_column("proxies", sa.Column("metadata_format", sa.Integer))
    keys = sa.table("external_keys", sa.column("id"), sa.column("tag"))
    connection = op.get_bind()
    tags = [
        {"of": row.id, "new": bytes(octet | 0x80 for octet in secrets.token_bytes(12))}
        for row in connection.execute(sa.select(keys.c.id))
    ]
    if tags:
        connection.execute(keys.update().where(keys.c.id == sa.bindparam("of")).values(tag=sa.bindparam("new")), tags)
    states = ", ".join(f"'{state}'" for state in _STATES)
    # As text: SQLite adds a column with its constraint in this form only, and PostgreSQL takes the same.
    op.execute(
        "ALTER TABLE key_generations ADD COLUMN state VARCHAR(16) DEFAULT 'planned' NOT NULL"
        f" CONSTRAINT ck_key_generations_state CHECK (state IN ({states}))"
    )
    for name in ("state_since", "activated_at", "compromised_at", "destroy_after"):
        op.add_column("key_generations", sa.Column(name, sa.DateTime(timezone=True)))
    op.execute("UPDATE key_generations SET state = 'retired', state_since = created_at")
    op.execute(
        "UPDATE key_generations SET state = 'active', activated_at = created_at WHERE number ="
        " (SELECT MAX(other.number) FROM key_generations AS other WHERE other.key_id = key_generations.key_id)"
    )
    active = sa.text("state = 'active'")
    op.create_index(
        "ix_one_active", "key_generations", ["key_id"], unique=True, sqlite_where=active, postgresql_where=active
    )
