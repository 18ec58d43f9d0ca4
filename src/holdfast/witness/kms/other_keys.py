"""Operations of asymmetric, HMAC, imported and multi-Region keys: every key here is of another kind, and says so."""

from holdfast.witness.kms.call import Call, Output, Service
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.key_lookup import key_of, key_or_alias, wrong_origin


async def of_another_usage(call: Call, service: Service) -> Output:
    """Sign, GenerateMac and the like: the usage of every key here is ENCRYPT_DECRYPT."""
    arn = service.arn(f"key/{key_or_alias(call, service).id}")
    raise KmsException(
        "InvalidKeyUsageException", f"{arn} key usage is ENCRYPT_DECRYPT which is not valid for {call.operation}."
    )


async def of_asymmetric_keys(call: Call, service: Service) -> Output:
    """GetPublicKey: no key here has a public key."""
    arn = service.arn(f"key/{key_or_alias(call, service).id}")
    raise KmsException("UnsupportedOperationException", f"{arn} is a symmetric key: it has no public key.")


async def of_imported_keys(call: Call, service: Service) -> Output:
    """GetParametersForImport, ImportKeyMaterial, DeleteImportedKeyMaterial: no key here has the origin EXTERNAL."""
    raise wrong_origin(key_of(call, service), service)


async def of_multi_region_keys(call: Call, service: Service) -> Output:
    """ReplicateKey, UpdatePrimaryRegion: no key here is a multi-Region key."""
    arn = service.arn(f"key/{key_of(call, service).id}")
    raise KmsException("UnsupportedOperationException", f"{arn} is not a multi-Region primary key.")
