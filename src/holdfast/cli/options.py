"""Options that many commands share, and what they open: the configuration and its catalog."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from holdfast.admin.catalogs import open_catalog
from holdfast.admin.errors import Invalid
from holdfast.catalog.store import Catalog
from holdfast.cli.output import utc_now
from holdfast.config.load import parse
from holdfast.config.model import Configuration

DEFAULT_PLACES = (Path("holdfast.toml"), Path("/etc/holdfast/holdfast.toml"))
"""Where the configuration is looked for, in this order, when neither --config nor HOLDFAST_CONFIG names it."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="HOLDFAST_CONFIG",
        help="The configuration file. Without it ./holdfast.toml, then /etc/holdfast/holdfast.toml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Apply the plan without asking.")]


@dataclass(frozen=True, slots=True)
class Installation:
    """A configuration and its open catalog."""

    configuration: Configuration
    catalog: Catalog


def configuration_path(named: Path | None) -> Path:
    """The configuration file to use. Raises Invalid where there is none."""
    if named is not None:
        if not named.is_file():
            raise Invalid(
                f"there is no configuration file {named}", hint="`holdfast init --directory DIR` makes one."
            )
        return named
    for place in DEFAULT_PLACES:
        if place.is_file():
            return place
    raise Invalid(
        f"no configuration file: neither {' nor '.join(map(str, DEFAULT_PLACES))} exists",
        hint="Name it with --config or HOLDFAST_CONFIG, or make one with `holdfast init --directory DIR`.",
    )


def read_configuration(named: Path | None) -> Configuration:
    """The configuration. Its TLS files and PINs are not touched: blocking a keystore must not need them."""
    path = configuration_path(named)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}", hint="Run this as the user that the proxy runs as, or as root."
        ) from None
    return parse(text, path)


@contextmanager
def installation(named: Path | None) -> Iterator[Installation]:
    """The configuration and its catalog, closed at the end."""
    configuration = read_configuration(named)
    with closing(open_catalog(configuration, now=utc_now)) as catalog:
        yield Installation(configuration, catalog)
