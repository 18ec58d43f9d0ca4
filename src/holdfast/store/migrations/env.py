"""What Alembic executes for every command: the connection is the caller's, already in its transaction."""

from alembic import context

from holdfast.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,  # also on SQLite, where `database.py` begins its transactions itself
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
