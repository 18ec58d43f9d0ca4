"""One run of the catalogue of checks for each backend, whoever asks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.conformance.backends import Backend, server_of, session_with
from tests.server.conftest import shim_library, tokens  # noqa: F401 (fixtures)

from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.check.finding import Result
from holdfast.witness.check.run import run

if TYPE_CHECKING:
    from pathlib import Path

Results = dict[str, Result]
Check = Callable[[Backend], Results]


@pytest.fixture(scope="session")
def checked(
    tmp_path_factory: pytest.TempPathFactory,
    tokens: Path,  # noqa: F811 (the fixture)
    shim_library: Path,  # noqa: F811 (the fixture)
) -> Check:
    """Every check's result on a backend; the server ends with the run."""
    known: dict[str, Results] = {}

    def results(backend: Backend) -> Results:
        if backend.name not in known:
            directory = tmp_path_factory.mktemp("conformance") / backend.name
            with server_of(backend, directory, tokens, shim_library) as server:
                report = run(session_with(server), CATALOGUE, lambda _: None)
            known[backend.name] = {result.check.id: result for result in report.results}
        return known[backend.name]

    return results
