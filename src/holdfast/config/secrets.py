"""Looks at what the configuration refers to, as late as possible: in the process that needs it."""

from dataclasses import replace

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.model import HsmTable
from holdfast.config.safe_path import distrust_library
from holdfast.hsm.settings import HsmSettings
from holdfast.secrets.errors import SecretMissing


def resolve(table: HsmTable) -> HsmSettings:
    """The HSM's settings with its PIN read, for a process that will load its library.

    Raises ConfigurationError, also for a library that others can change. Its text never holds the PIN.
    """
    if why := distrust_library(table.settings.library):
        raise ConfigurationError(f"[hsm.{table.settings.name}]", (Problem(None, f"the library {why}"),))
    if table.pin is None:
        return table.settings
    try:
        return replace(table.settings, pin=table.pin.read())
    except SecretMissing as error:
        name = f"[hsm.{table.settings.name}]"
        raise ConfigurationError(name, (Problem(None, f"the PIN: {error}"),)) from None
