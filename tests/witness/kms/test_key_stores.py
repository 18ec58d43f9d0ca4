"""The life of an external key store, through boto3."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms, connected_store, create_store, describe_store, error_of, settle
from tests.witness.kms.tls import Authority
from tests.witness.kms.xks_proxy import ACCESS_KEY_ID, HOST, XksProxy, delayed

from holdfast.witness.kms.settings import Address, VpcEndpointService
from holdfast.xks.types import HealthStatus, Operation

SERVICE = "com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0"
OTHER_ACCOUNT = "444455556666"
OWNER = {"XksProxyVpcEndpointServiceOwner": OTHER_ACCOUNT}
VPC = {"XksProxyConnectivity": "VPC_ENDPOINT_SERVICE", "XksProxyVpcEndpointServiceName": SERVICE}
WRONG_SECRET = {"AccessKeyId": ACCESS_KEY_ID, "RawSecretAccessKey": "wrong" * 10}

Start = Callable[..., LocalKms]


def test_a_new_store_is_disconnected_and_hides_the_secret(kms: Any) -> None:
    entry = describe_store(kms, create_store(kms))
    assert entry["ConnectionState"] == "DISCONNECTED"
    assert entry["XksProxyConfiguration"] == {
        "Connectivity": "PUBLIC_ENDPOINT",
        "AccessKeyId": ACCESS_KEY_ID,
        "UriEndpoint": f"https://{HOST}",
        "UriPath": "/one/kms/xks/v1",
    }


def test_create_asks_the_proxy_for_its_health(kms: Any, proxy: XksProxy) -> None:
    create_store(kms)
    assert [(operation, metadata.kms_operation) for operation, metadata in proxy.requests] == [
        (Operation.GET_HEALTH_STATUS, "CreateCustomKeyStore")
    ]


def test_a_path_prefix_may_be_empty(kms: Any) -> None:
    assert describe_store(kms, connected_store(kms, XksProxyUriPath="/kms/xks/v1"))["ConnectionState"] == "CONNECTED"


def test_a_wildcard_certificate_connects_but_has_no_days(start: Start, proxy: XksProxy, authority: Authority) -> None:
    """CloudWatch has no XksProxyCertificateDaysToExpire for it."""
    del proxy
    other = XksProxy(authority.server_context("*.example.com"))
    try:
        local_kms = start(routes={HOST: Address("127.0.0.1", other.port)})
        connected_store(local_kms.client())
        with urlopen(f"{local_kms.url}/metrics", timeout=PATIENCE) as response:  # noqa: S310 (loopback)
            assert b"XksProxyCertificateDaysToExpire{" not in response.read()
    finally:
        other.close()


def test_connecting_takes_its_time(start: Start, proxy: XksProxy) -> None:
    del proxy
    kms = start(connection_delay=3600).client()
    store_id = create_store(kms)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert describe_store(kms, store_id)["ConnectionState"] == "CONNECTING"


def test_disconnecting_stops_a_connection_attempt(start: Start, proxy: XksProxy) -> None:
    kms = start(connection_delay=1.0).client()
    store_id = create_store(kms)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "DISCONNECTED"
    assert len(proxy.requests) == 1


def test_a_failed_store_is_disconnected_before_it_connects_again(kms: Any, proxy: XksProxy) -> None:
    store_id = create_store(kms)
    proxy.secret = "another" * 8
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionErrorCode"] == "INVALID_CREDENTIALS"
    name, _ = error_of(kms.connect_custom_key_store, CustomKeyStoreId=store_id)
    assert name == "CustomKeyStoreInvalidStateException"
    kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
    assert "ConnectionErrorCode" not in settle(kms, store_id)
    proxy.reset()
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "CONNECTED"


def test_a_disconnected_store_cannot_be_disconnected(kms: Any) -> None:
    store_id = create_store(kms)
    name, _ = error_of(kms.disconnect_custom_key_store, CustomKeyStoreId=store_id)
    assert name == "CustomKeyStoreInvalidStateException"


def test_only_a_disconnected_store_is_deleted(kms: Any) -> None:
    store_id = connected_store(kms)
    assert error_of(kms.delete_custom_key_store, CustomKeyStoreId=store_id)[0] == (
        "CustomKeyStoreInvalidStateException"
    )
    kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
    settle(kms, store_id)
    kms.delete_custom_key_store(CustomKeyStoreId=store_id)
    name, _ = error_of(kms.describe_custom_key_stores, CustomKeyStoreId=store_id)
    assert name == "CustomKeyStoreNotFoundException"


@pytest.mark.parametrize(
    "change",
    [
        {"NewCustomKeyStoreName": "renamed"},
        {"XksProxyUriPath": "/two/kms/xks/v1"},
        {
            "XksProxyAuthenticationCredential": {
                "AccessKeyId": ACCESS_KEY_ID,
                "RawSecretAccessKey": "b25lIG1vcmUgc2VjcmV0IG9mIHRoZSB0ZXN0IHByb3h5IQ==",
            }
        },
    ],
    ids=["name", "path", "credential"],
)
def test_these_change_while_connected(kms: Any, proxy: XksProxy, change: dict[str, Any]) -> None:
    store_id = connected_store(kms)
    if credential := change.get("XksProxyAuthenticationCredential"):
        proxy.secret = credential["RawSecretAccessKey"]
    kms.update_custom_key_store(CustomKeyStoreId=store_id, **change)
    assert describe_store(kms, store_id)["ConnectionState"] == "CONNECTED"


@pytest.mark.parametrize(
    "change",
    [
        {"XksProxyUriEndpoint": "https://other.example.com"},
        {"XksProxyConnectivity": "PUBLIC_ENDPOINT"},
        {"XksProxyVpcEndpointServiceName": SERVICE},
    ],
    ids=["endpoint", "connectivity", "service"],
)
def test_these_do_not_change_while_connected(kms: Any, change: dict[str, str]) -> None:
    store_id = connected_store(kms)
    name, _ = error_of(kms.update_custom_key_store, CustomKeyStoreId=store_id, **change)
    assert name == "CustomKeyStoreInvalidStateException"


def test_an_update_that_the_proxy_refuses_changes_nothing(kms: Any) -> None:
    store_id = connected_store(kms)
    name, _ = error_of(
        kms.update_custom_key_store, CustomKeyStoreId=store_id, XksProxyAuthenticationCredential=WRONG_SECRET
    )
    assert name == "XksProxyIncorrectAuthenticationCredentialException"
    kms.update_custom_key_store(CustomKeyStoreId=store_id, XksProxyUriPath="/two/kms/xks/v1")


def test_names_and_addresses_belong_to_one_store(kms: Any) -> None:
    create_store(kms)
    assert error_of(create_store, kms=kms, XksProxyUriPath="/two/kms/xks/v1")[0] == (
        "CustomKeyStoreNameInUseException"
    )
    assert error_of(create_store, kms=kms, CustomKeyStoreName="b")[0] == "XksProxyUriInUseException"
    create_store(kms, CustomKeyStoreName="b", XksProxyUriPath="/two/kms/xks/v1")


def test_a_region_has_ten_stores_at_most(start: Start, proxy: XksProxy) -> None:
    """VPC stores, since the proxy is not asked when one is created."""
    address = Address("127.0.0.1", proxy.port)
    hosts = {f"{SERVICE[:-1]}{i:x}": f"xks-{i}.example.com" for i in range(11)}
    kms = start(vpc_services={name: VpcEndpointService(host, address) for name, host in hosts.items()}).client()
    stores = [
        {
            **VPC,
            "CustomKeyStoreName": host,
            "XksProxyVpcEndpointServiceName": service,
            "XksProxyUriEndpoint": f"https://{host}",
        }
        for service, host in hosts.items()
    ]
    for store in stores[:10]:
        create_store(kms, **store)
    assert error_of(create_store, kms=kms, **stores[10])[0] == "LimitExceededException"
    first = kms.describe_custom_key_stores(Limit=6)
    rest = kms.describe_custom_key_stores(Marker=first["NextMarker"])
    assert (len(first["CustomKeyStores"]), len(rest["CustomKeyStores"]), rest["Truncated"]) == (6, 4, False)


def test_every_hsm_unavailable_makes_create_fail(kms: Any, proxy: XksProxy) -> None:
    proxy.health = [HealthStatus.UNAVAILABLE, HealthStatus.UNAVAILABLE]
    assert error_of(create_store, kms=kms)[0] == "XksProxyUriUnreachableException"


def test_one_degraded_hsm_is_enough(kms: Any, proxy: XksProxy) -> None:
    proxy.health = [HealthStatus.UNAVAILABLE, HealthStatus.DEGRADED]
    create_store(kms)


@pytest.fixture
def vpc_kms(start: Start, proxy: XksProxy) -> Any:
    """A client of a KMS that knows one VPC endpoint service, whose private DNS name is the proxy's."""
    service = VpcEndpointService(HOST, Address("127.0.0.1", proxy.port))
    return start(vpc_services={SERVICE: service}, routes={}).client()


def test_a_store_behind_a_vpc_endpoint_service_connects(vpc_kms: Any, proxy: XksProxy) -> None:
    """Nothing is sent to the proxy before the store is connected."""
    store_id = create_store(vpc_kms, **VPC)
    assert proxy.requests == []
    vpc_kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    entry = settle(vpc_kms, store_id)
    assert entry["ConnectionState"] == "CONNECTED"
    assert entry["XksProxyConfiguration"]["VpcEndpointServiceName"] == SERVICE


def test_a_vpc_endpoint_service_is_the_callers_own_unless_it_has_another_owner(vpc_kms: Any) -> None:
    store_id = create_store(vpc_kms, **VPC)
    assert describe_store(vpc_kms, store_id)["XksProxyConfiguration"]["VpcEndpointServiceOwner"] == "111122223333"


def test_a_vpc_endpoint_service_of_another_account_needs_its_owner(start: Start, proxy: XksProxy) -> None:
    service = VpcEndpointService(HOST, Address("127.0.0.1", proxy.port), owner=OTHER_ACCOUNT)
    kms = start(vpc_services={SERVICE: service}, routes={}).client()
    assert error_of(create_store, kms=kms, **VPC)[0] == "XksProxyVpcEndpointServiceNotFoundException"
    entry = describe_store(kms, connected_store(kms, **VPC, XksProxyVpcEndpointServiceOwner=OTHER_ACCOUNT))
    assert entry["ConnectionState"] == "CONNECTED"
    assert entry["XksProxyConfiguration"]["VpcEndpointServiceOwner"] == OTHER_ACCOUNT


def test_the_owner_of_a_vpc_endpoint_service_changes_while_disconnected(
    start: Start, proxy: XksProxy, tmp_path: Path
) -> None:
    service = VpcEndpointService(HOST, Address("127.0.0.1", proxy.port))
    store_id = create_store(start(data=tmp_path / "data", vpc_services={SERVICE: service}).client(), **VPC)
    moved = replace(service, owner=OTHER_ACCOUNT)
    kms = start(data=tmp_path / "data", vpc_services={SERVICE: moved}).client()
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionErrorCode"] == "XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND"
    kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
    settle(kms, store_id)
    kms.update_custom_key_store(CustomKeyStoreId=store_id, XksProxyVpcEndpointServiceOwner=OTHER_ACCOUNT)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "CONNECTED"


@pytest.mark.parametrize("connectivity", ["VPC_ENDPOINT_SERVICE", "PUBLIC_ENDPOINT"])
def test_the_service_goes_with_vpc_connectivity(vpc_kms: Any, connectivity: str) -> None:
    """Required there, refused beside a public endpoint."""
    wrong: dict[str, Any] = {"XksProxyConnectivity": connectivity}
    name, message = error_of(create_store, kms=vpc_kms, **wrong, **({} if connectivity[0] == "V" else OWNER))
    assert name == "ValidationException"
    assert "XksProxyVpcEndpointService" in message


def test_an_unknown_vpc_endpoint_service_is_not_found(vpc_kms: Any) -> None:
    other = {**VPC, "XksProxyVpcEndpointServiceName": SERVICE[:-1] + "9"}
    assert error_of(create_store, kms=vpc_kms, **other)[0] == "XksProxyVpcEndpointServiceNotFoundException"


def test_another_private_dns_name_is_an_invalid_configuration(vpc_kms: Any) -> None:
    other = {**VPC, "XksProxyUriEndpoint": "https://other.example.com"}
    assert error_of(create_store, kms=vpc_kms, **other)[0] == (
        "XksProxyVpcEndpointServiceInvalidConfigurationException"
    )


def test_a_vpc_endpoint_service_belongs_to_one_store(vpc_kms: Any) -> None:
    create_store(vpc_kms, **VPC)
    other = {**VPC, "CustomKeyStoreName": "b", "XksProxyUriPath": "/two/kms/xks/v1"}
    assert error_of(create_store, kms=vpc_kms, **other)[0] == "XksProxyVpcEndpointServiceInUseException"


def test_a_private_dns_name_is_not_a_public_endpoint_too(vpc_kms: Any) -> None:
    create_store(vpc_kms, **VPC)
    assert error_of(create_store, kms=vpc_kms, CustomKeyStoreName="b", XksProxyUriPath="/two/kms/xks/v1")[0] == (
        "XksProxyUriEndpointInUseException"
    )


def test_a_vpc_store_becomes_public(start: Start, proxy: XksProxy) -> None:
    address = Address("127.0.0.1", proxy.port)
    kms = start(vpc_services={SERVICE: VpcEndpointService(HOST, address)}, routes={HOST: address}).client()
    store_id = create_store(kms, **VPC)
    public = {"XksProxyConnectivity": "PUBLIC_ENDPOINT", "XksProxyUriEndpoint": f"https://{HOST}"}
    name, _ = error_of(kms.update_custom_key_store, CustomKeyStoreId=store_id, **public, **OWNER)
    assert name == "ValidationException"
    kms.update_custom_key_store(CustomKeyStoreId=store_id, **public)
    shown = describe_store(kms, store_id)["XksProxyConfiguration"]
    assert not {"VpcEndpointServiceName", "VpcEndpointServiceOwner"} & set(shown)


def test_a_public_store_becomes_a_vpc_store(start: Start, proxy: XksProxy) -> None:
    address = Address("127.0.0.1", proxy.port)
    kms = start(vpc_services={SERVICE: VpcEndpointService(HOST, address)}, routes={HOST: address}).client()
    store_id = create_store(kms)
    name, _ = error_of(
        kms.update_custom_key_store, CustomKeyStoreId=store_id, XksProxyConnectivity="VPC_ENDPOINT_SERVICE"
    )
    assert name == "ValidationException"
    kms.update_custom_key_store(CustomKeyStoreId=store_id, **VPC)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "CONNECTED"


def test_a_failed_store_is_disconnected_before_it_is_updated(kms: Any, proxy: XksProxy) -> None:
    store_id = create_store(kms)
    proxy.secret = "another" * 8
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "FAILED"
    name, _ = error_of(kms.update_custom_key_store, CustomKeyStoreId=store_id, NewCustomKeyStoreName="b")
    assert name == "CustomKeyStoreInvalidStateException"


def test_two_creations_at_once_do_not_share_a_name(local_kms: LocalKms, proxy: XksProxy) -> None:
    """The second waits for the proxy while the first is stored; the first wins."""
    proxy.alter = delayed(0.15)
    clients = [local_kms.client(), local_kms.client()]

    def create(kms: Any, path: str) -> str:
        try:
            return create_store(kms, XksProxyUriPath=path)
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(create, clients, ["/one/kms/xks/v1", "/two/kms/xks/v1"]))
    assert outcomes[0] == "CustomKeyStoreNameInUseException"
    assert outcomes[1].startswith("cks-")


@pytest.mark.parametrize(
    ("later", "code"),
    [
        ({}, "XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND"),
        ({SERVICE: "renamed.example.com"}, "XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION"),
    ],
    ids=["gone", "renamed"],
)
def test_a_vpc_endpoint_service_that_has_changed_fails_to_connect(
    start: Start, proxy: XksProxy, tmp_path: Path, later: dict[str, str], code: str
) -> None:
    address = Address("127.0.0.1", proxy.port)
    services = {SERVICE: VpcEndpointService(HOST, address)}
    store_id = create_store(start(data=tmp_path / "data", vpc_services=services).client(), **VPC)
    changed = {service: VpcEndpointService(name, address) for service, name in later.items()}
    kms = start(data=tmp_path / "data", vpc_services=changed).client()
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionErrorCode"] == code


@pytest.mark.parametrize("missing", ["XksProxyUriEndpoint", "XksProxyUriPath", "XksProxyConnectivity"])
def test_an_external_key_store_needs_them_all(kms: Any, missing: str) -> None:
    assert error_of(create_store, kms=kms, **{missing: None})[0] == "ValidationException"


def test_there_are_no_cloudhsm_clusters(kms: Any) -> None:
    assert error_of(create_store, kms=kms, CustomKeyStoreType="AWS_CLOUDHSM")[0] == "ValidationException"
    cluster = {
        "CloudHsmClusterId": "cluster-2a23b4cdefgh",
        "TrustAnchorCertificate": "x",
        "KeyStorePassword": "password",
    }
    name, message = error_of(kms.create_custom_key_store, CustomKeyStoreName="hsm", **cluster)
    assert name == "CloudHsmClusterNotFoundException"
    assert "cluster-2a23b4cdefgh" in message
