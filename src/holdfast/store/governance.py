"""Who may ask for changes and approve them, by which rules, and what waits for approval."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update

from holdfast.store import rows, schema
from holdfast.store.errors import NotFound
from holdfast.store.reads import NEVER, Reading
from holdfast.store.rows import raw
from holdfast.store.writing import Writing


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """A person who asks for changes or approves them. `public_key`: an SSH key as `TYPE BASE64`."""

    name: str
    roles: tuple[str, ...]
    public_key: str | None
    enrolled_at: datetime


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A change that needs approval: its plan as a document. `outcome` None: undecided."""

    id: str
    plan: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """One person's signature over the plan's digest, by this key."""

    operator: str
    time: datetime
    public_key: str
    signature: str


def operators(state: Reading) -> list[OperatorRow]:
    """Everybody who is enrolled, by name. A row that is wrong is left out."""
    table = schema.operators
    query = select(*raw(table, "name", "roles", "public_key", "enrolled_at")).order_by(table.c.name)
    return [
        OperatorRow(
            row.name,
            tuple(row.roles.split()),
            row.public_key if isinstance(row.public_key, str) else None,
            rows.moment(row.enrolled_at) or NEVER,
        )
        for row in state.connection.execute(query)
        if isinstance(row.name, str) and isinstance(row.roles, str)
    ]


def rules_of(state: Reading, name: str) -> str | None:
    """The rules called `approval` or `authorization`; None: there are none."""
    table = schema.rules
    found: str | None = state.connection.execute(select(table.c.content).where(table.c.name == name)).scalar()
    return found


def requests(state: Reading, beginning: str = "", *, undecided: bool = False) -> list[RequestRow]:
    """The requests whose id begins so; with `undecided` only those that wait."""
    table = schema.requests
    query = select(*raw(table, "id", "plan", "outcome")).where(table.c.id.startswith(beginning, autoescape=True))
    if undecided:
        query = query.where(table.c.outcome.is_(None))
    return [RequestRow(row.id, row.plan, row.outcome) for row in state.connection.execute(query.order_by(table.c.id))]


def approvals(state: Reading, request: str) -> list[ApprovalRow]:
    """The approvals of a request, in the order in which they were given."""
    table = schema.approvals
    query = (
        select(*raw(table, "operator", "time", "public_key", "signature"))
        .where(table.c.request_id == request)
        .order_by(table.c.time, table.c.operator)
    )
    return [
        ApprovalRow(row.operator, rows.moment(row.time) or NEVER, row.public_key, row.signature)
        for row in state.connection.execute(query)
    ]


class GovernanceChanges(Writing):
    """Changes to operators, rules and requests. They raise CatalogError."""

    def enrol_operator(self, name: str, roles: Sequence[str], public_key: str | None) -> None:
        """Enrol a person, or change roles and key of one who is enrolled."""
        table = schema.operators
        values = {"roles": " ".join(roles), "public_key": public_key}
        if not self.connection.execute(update(table).where(table.c.name == name).values(**values)).rowcount:
            self.connection.execute(insert(table).values(name=name, enrolled_at=self.now, **values))

    def remove_operator(self, name: str) -> None:
        """Forget a person. Raises NotFound."""
        table = schema.operators
        if not self.connection.execute(delete(table).where(table.c.name == name)).rowcount:
            raise NotFound(f"there is no operator {name!r}")

    def set_rules(self, name: str, content: str | None) -> None:
        """Replace the rules called so; None: there are none any more."""
        table = schema.rules
        self.connection.execute(delete(table).where(table.c.name == name))
        if content is not None:
            self.connection.execute(insert(table).values(name=name, content=content))

    def open_request(self, identity: str, plan: str) -> None:
        """A change waits for approval."""
        self.connection.execute(insert(schema.requests).values(id=identity, plan=plan))

    def close_request(self, identity: str, outcome: str) -> None:
        """What became of a request that waited."""
        table = schema.requests
        self.connection.execute(update(table).where(table.c.id == identity).values(outcome=outcome))

    def add_approval(self, request: str, operator: str, *, public_key: str, signature: str) -> None:
        """Keep a signature. A second one of the same person replaces the first."""
        table = schema.approvals
        self.connection.execute(delete(table).where(table.c.request_id == request, table.c.operator == operator))
        self.connection.execute(
            insert(table).values(
                request_id=request,
                operator=operator,
                time=self.now,
                public_key=public_key,
                signature=signature,
            )
        )
