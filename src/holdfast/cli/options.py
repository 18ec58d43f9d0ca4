"""Options that many commands share, and what they open: the configuration and its catalog."""

import os
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.output import say, utc_now
from holdfast.config.load import parse
from holdfast.config.model import Configuration
from holdfast.config.text import read_text
from holdfast.control.actor import current_actor
from holdfast.control.catalogs import create_catalog, open_catalog
from holdfast.control.errors import Invalid
from holdfast.control.runner import Control
from holdfast.store.errors import NoVersion
from holdfast.store.store import Catalog

DEFAULT_PLACE = Path("/etc/holdfast/holdfast.toml")
"""The configuration when neither --config nor HOLDFAST_CONFIG names one; never one of the working directory."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="HOLDFAST_CONFIG",
        help=f"The configuration file. Default: {DEFAULT_PLACE}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
KeystoreArgument = Annotated[str, typer.Argument(help="The keystore's name.", show_default=False)]
KeyArgument = Annotated[str, typer.Argument(help="The external key id.", show_default=False)]
ReasonOption = Annotated[str, typer.Option(help="Why, for the record.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", help="Apply the plan without asking.")]


@dataclass(frozen=True, slots=True)
class Installation:
    """A configuration and its open catalog."""

    configuration: Configuration
    catalog: Catalog

    @property
    def control(self) -> Control:
        """The way to change the catalog, in the name of whoever runs this command."""
        return Control(self.configuration, self.catalog, actor=current_actor(), now=utc_now)

    def command(self, line: str) -> str:
        """What to type for `holdfast LINE` on this installation, for a person to copy."""
        return f"holdfast {line}{config_flag(self.configuration.path)}"


def config_flag(path: Path) -> str:
    """` --config PATH`, to end a command that is shown; empty where `path` is found without it."""
    if path == DEFAULT_PLACE or str(path) == os.environ.get("HOLDFAST_CONFIG"):
        return ""
    return f" --config {shlex.quote(str(path))}"


def configuration_path(named: Path | None) -> Path:
    """The configuration file to use. Raises Invalid where there is none."""
    if named is not None:
        if not _is_there(named):
            raise Invalid(
                f"there is no configuration file {named}", hint="`holdfast init --directory DIR` makes one."
            )
        return named
    if _is_there(DEFAULT_PLACE):
        return DEFAULT_PLACE
    here = Path("holdfast.toml")
    hint = "Name it with --config or HOLDFAST_CONFIG, or make one with `holdfast init --directory DIR`."
    if here.is_file():
        hint = f"Is it the one of this directory? Name it: --config {here}"
    raise Invalid(f"no configuration file: {DEFAULT_PLACE} does not exist", hint=hint)


def _is_there(path: Path) -> bool:
    """Whether there is anything; whoever reads it says whether it is a file that can be read."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_configuration(named: Path | None) -> Configuration:
    """The configuration. Its TLS files and PINs are not touched: blocking a keystore must not need them.

    Raises Invalid, or ConfigurationError for a file that is wrong or that others can change.
    """
    path = configuration_path(named)
    return parse(read_text(path, language="TOML"), path)


def _version_of(catalog: Catalog) -> str:
    try:
        return f"version {catalog.version()}"
    except NoVersion:
        return "without a version"  # a block is possible all the same; other changes fail


@contextmanager
def installation(named: Path | None, *, changes: bool = True, create: bool = False) -> Iterator[Installation]:
    """The configuration and its catalog, closed at the end; with `create` its tables are made or upgraded.

    A command that `changes` something says first of which installation: a wrong one would be changed in silence.
    """
    configuration = read_configuration(named)
    opened = create_catalog if create else open_catalog
    with closing(opened(configuration, now=utc_now)) as catalog:
        if changes:
            say(f"Configuration {configuration.path}, catalog {configuration.catalog.url}, {_version_of(catalog)}")
        yield Installation(configuration, catalog)
