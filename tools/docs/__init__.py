"""The reference pages that are generated from the code: `make docs` writes them, git does not hold them."""

from collections.abc import Callable

from tests.conformance.requirements import page as conformance

from tools.docs import checker, command_line, configuration

GENERATED: dict[str, Callable[[], str]] = {
    "cli.md": command_line.page,
    "configuration.md": configuration.page,
    "conformance-checks.md": checker.conformance_checks,
    "kms-errors.md": checker.kms_errors,
    "conformance.md": conformance,
}
"""What makes each page of docs/reference that is not in git."""
