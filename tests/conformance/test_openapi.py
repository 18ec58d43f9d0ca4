"""The running server keeps to its OpenAPI document, for requests drawn from the document and for broken ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from requests.auth import AuthBase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from tests.server.conftest import tokens  # noqa: F401 (a fixture)
from tests.server.proxy_server import CREDENTIAL, PREFIX, ProxyServer

from holdfast.xks import messages
from holdfast.xks.errors import ErrorName
from holdfast.xks.sigv4 import sign

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = json.JSONDecoder().decode((Path(__file__).parents[2] / "docs/reference/openapi.json").read_text())
schema = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


FIELDS: dict[str, type[msgspec.Struct]] = {
    "GetHealthStatusRequest": messages.GetHealthStatusRequest,
    "GetHealthStatusResponse": messages.GetHealthStatusResponse,
    "GetKeyMetadataRequest": messages.GetKeyMetadataRequest,
    "GetKeyMetadataResponse": messages.GetKeyMetadataResponse,
    "EncryptRequest": messages._EncryptRequestWire,
    "EncryptResponse": messages._EncryptResponseWire,
    "DecryptRequest": messages._DecryptRequestWire,
    "DecryptResponse": messages._DecryptResponseWire,
}


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_the_document_has_the_fields_of_the_messages(name: str) -> None:
    described = DOCUMENT["components"]["schemas"][name]["properties"]
    assert set(described) == {field.encode_name for field in msgspec.structs.fields(FIELDS[name])}


def test_the_document_has_the_errors_of_the_spec() -> None:
    described = {
        error: int(status)
        for status, response in DOCUMENT["components"]["responses"].items()
        for error in response["content"]["application/json"]["schema"]["properties"]["errorName"]["enum"]
    }
    assert described == {str(name): int(name.status) for name in ErrorName}


class Signer(AuthBase):
    """Signs what `requests` is about to send."""

    def __call__(self, request: Any) -> Any:
        """The request with Host, X-Amz-Date and Authorization."""
        body = request.body or b""
        octets = body.encode() if isinstance(body, str) else body
        path, _, _ = request.path_url.partition("?")
        host = request.url.split("/")[2]
        request.headers.update(
            sign(request.method, path.encode(), host=host, body=octets, credential=CREDENTIAL, now=datetime.now(UTC))
        )
        return request


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[ProxyServer]:  # noqa: F811 (the fixture)
    with ProxyServer(tmp_path_factory.mktemp("openapi") / "server", tokens) as running:
        yield running


@pytest.mark.server
@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_an_answer_is_one_of_the_document(case: Any, server: ProxyServer) -> None:
    # A key that exists, in every second example, so that the answer is not always KeyNotFoundException.
    if "externalKeyId" in case.path_parameters and len(str(case.path_parameters["externalKeyId"])) % 2:
        case.path_parameters["externalKeyId"] = "key-1"
    response = case.call(
        base_url=f"{server.url}{PREFIX}/kms/xks/v1", auth=Signer(), verify=str(server.authority.certificate)
    )
    case.validate_response(response, checks=CHECKS)
