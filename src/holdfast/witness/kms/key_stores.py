"""CreateCustomKeyStore, DescribeCustomKeyStores, Update-, Connect-, Disconnect- and DeleteCustomKeyStore."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.witness.kms import vpc
from holdfast.witness.kms.call import Call, Output, Service, page
from holdfast.witness.kms.errors import KmsException, of_failure, validation_error
from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms.records import (
    CONNECTED,
    DISCONNECTED,
    DISCONNECTING,
    FAILED,
    PUBLIC,
    VPC,
    Key,
    KeyStore,
    date,
)
from holdfast.witness.kms_errors import ConnectionErrorCode, OperationGroup

MAX_KEY_STORES = 10
"""Per account and Region (KMS quotas)."""

_REQUIRED = ("XksProxyUriEndpoint", "XksProxyUriPath", "XksProxyAuthenticationCredential", "XksProxyConnectivity")
_CLOUDHSM = ("CloudHsmClusterId", "TrustAnchorCertificate", "KeyStorePassword")
_NEEDS_DISCONNECTED = (
    "XksProxyUriEndpoint",
    "XksProxyConnectivity",
    "XksProxyVpcEndpointServiceName",
    "XksProxyVpcEndpointServiceOwner",
)


async def create(call: Call, service: Service) -> Output:
    """CreateCustomKeyStore. A public endpoint must answer a health call now, a VPC one when it is connected."""
    given = call.input
    if given.get("CustomKeyStoreType", "AWS_CLOUDHSM") != "EXTERNAL_KEY_STORE":
        raise _no_cloudhsm(given)
    _refuse_cloudhsm(given)
    for name in _REQUIRED:
        if name not in given:
            raise validation_error(f"{name} is required for a key store of type EXTERNAL_KEY_STORE.")
    if len(service.state.select(KeyStore)) >= MAX_KEY_STORES:
        raise KmsException("LimitExceededException", f"The account has {MAX_KEY_STORES} custom key stores already.")
    now = service.timestamp()
    credential = given["XksProxyAuthenticationCredential"]
    store = KeyStore(
        id=f"cks-{secrets.token_hex(9)[:17]}",
        name=given["CustomKeyStoreName"],
        created=now,
        connectivity=given["XksProxyConnectivity"],
        uri_endpoint=given["XksProxyUriEndpoint"],
        uri_path=given["XksProxyUriPath"],
        access_key_id=credential["AccessKeyId"],
        secret_access_key=credential["RawSecretAccessKey"],
        credential_since=now,
        vpc_service=given.get("XksProxyVpcEndpointServiceName"),
        vpc_service_owner=given.get("XksProxyVpcEndpointServiceOwner"),
    )
    store = _with_vpc_owner(store, service)
    await _require_usable(store, call, service, reachable=store.connectivity == PUBLIC)
    # Another CreateCustomKeyStore may have taken name or address during the call of the proxy.
    _require_unique(store, service)
    service.state.put(store)
    return {"CustomKeyStoreId": store.id}


async def describe(call: Call, service: Service) -> Output:
    """DescribeCustomKeyStores: all, or the one of an id or a name."""
    wanted = {"CustomKeyStoreId": "id", "CustomKeyStoreName": "name"}
    chosen = {column: call.input[name] for name, column in wanted.items() if name in call.input}
    if len(chosen) > 1:
        raise validation_error("Specify CustomKeyStoreId or CustomKeyStoreName, not both.")
    stores = {store.id: store for store in service.state.select(KeyStore, **chosen)}
    if chosen and not stores:
        raise _not_found(next(iter(chosen.values())))
    ids, paging = page(call, list(stores))
    return {"CustomKeyStores": [_entry(stores[store_id]) for store_id in ids], **paging}


async def update(call: Call, service: Service) -> Output:
    """UpdateCustomKeyStore. Name, credential and path may change while the store is connected."""
    store = of_id(call, service)
    given = call.input
    _refuse_cloudhsm(given)
    changes = _changes(given, service.timestamp())
    if not changes:
        raise validation_error("UpdateCustomKeyStore needs at least one property to change.")
    fixed = [name for name in _NEEDS_DISCONNECTED if name in given]
    allowed = (DISCONNECTED,) if fixed else (DISCONNECTED, CONNECTED)
    if store.connection_state not in allowed:
        raise _wrong_state(store, f"update {' and '.join(fixed) or 'it'}")
    if given.get("XksProxyConnectivity") == PUBLIC:
        changes = {"vpc_service": None, "vpc_service_owner": None} | changes
    changed = _with_vpc_owner(replace(store, **changes), service)
    # A new name alone leads to no call of the proxy.
    reachable = set(changes) != {"name"} and (changed.connectivity == PUBLIC or store.connection_state == CONNECTED)
    await _require_usable(changed, call, service, reachable=reachable)
    # The connection state, or another property, may have changed during the call of the proxy.
    current = _with_vpc_owner(replace(of_id(call, service), **changes), service)
    _require_unique(current, service)
    service.state.put(current)
    return {}


async def connect(call: Call, service: Service) -> Output:
    """ConnectCustomKeyStore: begins. DescribeCustomKeyStores shows how it ended."""
    store = of_id(call, service)
    if store.connection_state in {DISCONNECTING, FAILED}:
        raise _wrong_state(store, "connect it")
    if store.connection_state == DISCONNECTED:
        service.connections.connect(store, call.trail)
    return {}


async def disconnect(call: Call, service: Service) -> Output:
    """DisconnectCustomKeyStore: begins; its keys are unusable from now on."""
    store = of_id(call, service)
    if store.connection_state in {DISCONNECTING, DISCONNECTED}:
        raise _wrong_state(store, "disconnect it")
    service.connections.disconnect(store)
    return {}


async def delete(call: Call, service: Service) -> Output:
    """DeleteCustomKeyStore: only a disconnected store without keys."""
    store = of_id(call, service)
    if service.state.select(Key, key_store_id=store.id):
        raise KmsException(
            "CustomKeyStoreHasCMKsException", f"The custom key store {store.id} has KMS keys. Delete them first."
        )
    if store.connection_state != DISCONNECTED:
        raise _wrong_state(store, "delete it")
    service.state.delete(store)
    service.gateway.forget(store.id)
    return {}


def of_id(call: Call, service: Service) -> KeyStore:
    """The store of the call's CustomKeyStoreId. Raises KmsException(CustomKeyStoreNotFoundException)."""
    store_id = call.input["CustomKeyStoreId"]
    store = service.state.find(KeyStore, id=store_id)
    if store is None:
        raise _not_found(store_id)
    return store


def _changes(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    columns = {
        "NewCustomKeyStoreName": "name",
        "XksProxyUriEndpoint": "uri_endpoint",
        "XksProxyUriPath": "uri_path",
        "XksProxyConnectivity": "connectivity",
        "XksProxyVpcEndpointServiceName": "vpc_service",
        "XksProxyVpcEndpointServiceOwner": "vpc_service_owner",
    }
    changes = {column: given[name] for name, column in columns.items() if name in given}
    if (credential := given.get("XksProxyAuthenticationCredential")) is not None:
        changes["access_key_id"] = credential["AccessKeyId"]
        changes["secret_access_key"] = credential["RawSecretAccessKey"]
        changes["credential_since"] = now
    return changes


async def _require_usable(store: KeyStore, call: Call, service: Service, *, reachable: bool) -> None:
    _require_unique(store, service)
    if not store.uri_path.endswith("/kms/xks/v1"):
        raise validation_error("XksProxyUriPath must end with /kms/xks/v1, the version that KMS speaks.")
    if store.connectivity == VPC:
        _require_vpc_service(store, service)
    else:
        _refuse_vpc_service(store)
    if reachable:
        try:
            await service.gateway.health(store, call.trail)
        except ProxyFailure as failure:
            if service.state.find(KeyStore, id=store.id) is None:
                service.gateway.forget(store.id)
            raise of_failure(failure, OperationGroup.KEY_STORE) from None


def _require_unique(store: KeyStore, service: Service) -> None:
    for other in service.state.select(KeyStore):
        if other.id == store.id:
            continue
        if other.name == store.name:
            raise KmsException("CustomKeyStoreNameInUseException", f"A custom key store has the name {store.name}.")
        if store.vpc_service is not None and other.vpc_service == store.vpc_service:
            raise KmsException(
                "XksProxyVpcEndpointServiceInUseException", f"{other.id} uses {store.vpc_service} already."
            )
        if other.uri_endpoint.lower() != store.uri_endpoint.lower():
            continue
        if VPC in {store.connectivity, other.connectivity}:
            # A private DNS name belongs to one key store.
            raise KmsException("XksProxyUriEndpointInUseException", f"{other.id} uses {store.uri_endpoint} already.")
        if other.uri_path == store.uri_path:
            raise KmsException(
                "XksProxyUriInUseException", f"{other.id} uses {store.uri_endpoint}{store.uri_path} already."
            )


def _with_vpc_owner(store: KeyStore, service: Service) -> KeyStore:
    # Service model: without XksProxyVpcEndpointServiceOwner the service is in the caller's account.
    if store.connectivity != VPC or store.vpc_service_owner is not None:
        return store
    return replace(store, vpc_service_owner=service.settings.account)


def _refuse_vpc_service(store: KeyStore) -> None:
    for name, value in (
        ("XksProxyVpcEndpointServiceName", store.vpc_service),
        ("XksProxyVpcEndpointServiceOwner", store.vpc_service_owner),
    ):
        if value is not None:
            raise validation_error(f"{name} is valid only with XksProxyConnectivity VPC_ENDPOINT_SERVICE.")


def _require_vpc_service(store: KeyStore, service: Service) -> None:
    if store.vpc_service is None:
        raise validation_error(
            "XksProxyVpcEndpointServiceName is required with XksProxyConnectivity VPC_ENDPOINT_SERVICE."
        )
    match vpc.problem_of(store, service.settings):
        case ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND:
            raise KmsException(
                "XksProxyVpcEndpointServiceNotFoundException",
                f"There is no VPC endpoint service {store.vpc_service} of account {store.vpc_service_owner} in this "
                f"Region that allows the principal {service.settings.vpc_principal}.",
            )
        case ConnectionErrorCode():
            raise KmsException(
                "XksProxyVpcEndpointServiceInvalidConfigurationException",
                f"The private DNS name of {store.vpc_service} is not {store.host}.",
            )
        case None:
            return


def _refuse_cloudhsm(given: Mapping[str, Any]) -> None:
    for name in _CLOUDHSM:
        if name in given:
            raise validation_error(f"{name} is not valid for a key store of type EXTERNAL_KEY_STORE.")


def _no_cloudhsm(given: Mapping[str, Any]) -> KmsException:
    # The model lists no UnsupportedOperationException here.
    for name in _CLOUDHSM:
        if name not in given:
            return validation_error(f"{name} is required for a key store of type AWS_CLOUDHSM.")
    return KmsException(
        "CloudHsmClusterNotFoundException",
        f"There is no CloudHSM cluster {given['CloudHsmClusterId']}: the local KMS of Holdfast has none.",
    )


def _entry(store: KeyStore) -> Output:
    return {
        "CustomKeyStoreId": store.id,
        "CustomKeyStoreName": store.name,
        "ConnectionState": store.connection_state,
        "ConnectionErrorCode": store.connection_error_code,
        "CreationDate": date(store.created),
        "CustomKeyStoreType": "EXTERNAL_KEY_STORE",
        "XksProxyConfiguration": {
            "Connectivity": store.connectivity,
            "AccessKeyId": store.access_key_id,
            "UriEndpoint": store.uri_endpoint,
            "UriPath": store.uri_path,
            "VpcEndpointServiceName": store.vpc_service,
            "VpcEndpointServiceOwner": store.vpc_service_owner,
        },
    }


def _not_found(named: str) -> KmsException:
    return KmsException("CustomKeyStoreNotFoundException", f"There is no custom key store {named}.")


def _wrong_state(store: KeyStore, verb: str) -> KmsException:
    return KmsException(
        "CustomKeyStoreInvalidStateException",
        f"The custom key store {store.id} is {store.connection_state}: AWS KMS cannot {verb} in that state.",
    )
