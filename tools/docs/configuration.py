"""docs/reference/configuration.md, from the table that the reader itself uses."""

from holdfast.config.kinds import literal
from holdfast.config.tables import TABLES, Key, Table

_HEAD = """\
# Configuration

One TOML file describes what is installed: listeners, TLS, where the catalog is, limits, HSMs. What is managed
(keystores, credentials, keys) is in the catalog, and the `holdfast` commands change it.

The file is strict. An unknown key, a wrong type or a value out of range is an error that names the line and the
nearest known key; all errors are reported at once. Relative paths start at the directory of the file. It contains no
secrets, only their locations. A default of `-` means that there is none. There is an example for each HSM in
`examples/`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *(_section(table) for table in TABLES)))


def _section(table: Table) -> str:
    rows = "\n".join(_row(key) for key in table.keys)
    return (
        f"## `[{table.name}]`\n\n{table.meaning}\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n{rows}\n"
    )


def _row(key: Key) -> str:
    return f"| `{key.name}` | {key.words} | {_default(key)} | {key.meaning} |"


def _default(key: Key) -> str:
    if key.is_required:
        return "required"
    return "-" if key.default is None else f"`{literal(key.default)}`"
