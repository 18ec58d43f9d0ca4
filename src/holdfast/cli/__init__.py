"""The command line: one file per command group, loaded only when the command runs."""

from holdfast.cli.main import main

__all__ = ["main"]
