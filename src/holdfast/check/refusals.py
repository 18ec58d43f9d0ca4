"""What AWS KMS refuses of its own, with no answer of the proxy behind it: the rest of `holdfast explain`'s table."""

from dataclasses import dataclass
from typing import Final

from holdfast.check.explanations import Explanation


@dataclass(frozen=True, slots=True)
class Refusal:
    """An exception of KMS's API. `says` is the part of its message that tells it from others of that name, if any."""

    exception: str
    explanation: Explanation
    says: str = ""


_EXTERNAL_KEY = "GetKeyMetadata for this key: `holdfast check URL --key ID --only META` shows it as KMS sees it."

REFUSALS: Final[tuple[Refusal, ...]] = (
    Refusal(
        "XksKeyAlreadyInUseException",
        Explanation(
            "Another KMS key of this key store has the same XksKeyId: each KMS key wants an external key of its own.",
            "`aws kms list-keys` and describe-key: XksKeyConfiguration. Keys that are pending deletion count too.",
            "Use the KMS key that is there, or make another external key and create the KMS key with its id.",
        ),
    ),
    Refusal(
        "XksKeyInvalidConfigurationException",
        Explanation(
            "The external key is no 256-bit AES key.",
            _EXTERNAL_KEY,
            "Create the KMS key with an external key that is AES-256.",
        ),
        says="The key spec of the external key must be AES_256",
    ),
    Refusal(
        "XksKeyInvalidConfigurationException",
        Explanation(
            "The external key may not both encrypt and decrypt.",
            _EXTERNAL_KEY,
            "Create the KMS key with an external key that has CKA_ENCRYPT and CKA_DECRYPT.",
        ),
        says="The key usage of the external key must include ENCRYPT and DECRYPT",
    ),
    Refusal(
        "XksKeyInvalidConfigurationException",
        Explanation(
            "The external key is disabled at the proxy or the HSM.",
            f"{_EXTERNAL_KEY} With Holdfast: `holdfast key show`.",
            "Enable it there, and create the KMS key again.",
        ),
        says="The status of the external key must be ENABLED",
    ),
    Refusal(
        "XksProxyUriInUseException",
        Explanation(
            "Another key store of this account and Region has the same endpoint and path.",
            "XksProxyConfiguration in DescribeCustomKeyStores.",
            "Give each key store a path prefix of its own (with Holdfast: a keystore of its own).",
        ),
    ),
    Refusal(
        "XksProxyUriEndpointInUseException",
        Explanation(
            "Another key store of this Region has the endpoint, and one of the two uses a VPC endpoint service, "
            "whose private DNS name belongs to one key store.",
            "XksProxyConfiguration in DescribeCustomKeyStores.",
            "Give this key store another host name; with PUBLIC_ENDPOINT on both, another path is enough.",
        ),
    ),
    Refusal(
        "XksProxyVpcEndpointServiceInUseException",
        Explanation(
            "Another key store of this Region has the VPC endpoint service: each wants one of its own.",
            "XksProxyConfiguration in DescribeCustomKeyStores.",
            "Make another VPC endpoint service with a private DNS name of its own; both may lead to one load "
            "balancer.",
        ),
    ),
    Refusal(
        "XksProxyVpcEndpointServiceInvalidConfigurationException",
        Explanation(
            "The VPC endpoint service does not meet KMS's demands.",
            "Its load balancer's subnets (two Availability Zones or more), allowed principals "
            "(cks.kms.<region>.amazonaws.com), acceptance (not required), and private DNS name (verified, equal to "
            "the host of XksProxyUriEndpoint).",
            "Correct what is missing, and repeat the call.",
        ),
    ),
    Refusal(
        "XksProxyVpcEndpointServiceNotFoundException",
        Explanation(
            "There is no such VPC endpoint service in this Region and account, or KMS may not see it.",
            "XksProxyVpcEndpointServiceName, and XksProxyVpcEndpointServiceOwner if the service is in another "
            "account; the service's allowed principals.",
            "Correct the name or the owner, or allow cks.kms.<region>.amazonaws.com.",
        ),
    ),
    Refusal(
        "CustomKeyStoreInvalidStateException",
        Explanation(
            "The ConnectionState does not allow this: CreateKey wants CONNECTED; DeleteCustomKeyStore, and "
            "UpdateCustomKeyStore of endpoint and connectivity, DISCONNECTED; ConnectCustomKeyStore neither FAILED "
            "nor DISCONNECTING.",
            "ConnectionState in DescribeCustomKeyStores.",
            "Connect or disconnect first. A FAILED key store is disconnected, then connected.",
        ),
    ),
    Refusal(
        "CustomKeyStoreHasCMKsException",
        Explanation(
            "The key store still has KMS keys, those pending deletion included.",
            "`aws kms list-keys` and describe-key: CustomKeyStoreId.",
            "Schedule their deletion and wait it out, if no data needs them; else keep the key store, disconnected.",
        ),
    ),
    Refusal(
        "CustomKeyStoreNameInUseException",
        Explanation(
            "Another key store of this account and Region has the name.",
            "DescribeCustomKeyStores.",
            "Choose another.",
        ),
    ),
    Refusal(
        "CustomKeyStoreNotFoundException",
        Explanation(
            "This account and Region have no such key store.",
            "The Region of the call; CustomKeyStoreId in DescribeCustomKeyStores.",
            "Call with the right id, in the right Region.",
        ),
    ),
    Refusal(
        "DisabledException",
        Explanation(
            "The KMS key is disabled in AWS KMS. The proxy was not asked.",
            "KeyState in DescribeKey; DisableKey in CloudTrail.",
            "EnableKey, if it should serve.",
        ),
    ),
    Refusal(
        "KMSInvalidStateException",
        Explanation(
            "The KMS key waits to be deleted in AWS KMS. The proxy was not asked.",
            "DeletionDate in DescribeKey; ScheduleKeyDeletion in CloudTrail.",
            "CancelKeyDeletion, then EnableKey, if any data still needs it.",
        ),
        says="is pending deletion",
    ),
    Refusal(
        "ThrottlingException",
        Explanation(
            "KMS refused for a quota of its own, such as the requests per second of the key store (1,800 unless it "
            "was changed). The proxy was not asked.",
            "ExternalKeyStoreThrottle in CloudWatch.",
            "Cache data keys, slow the callers down, or ask AWS for a higher quota if the proxy carries it "
            "(`holdfast check --load`).",
        ),
    ),
    Refusal(
        "AccessDeniedException",
        Explanation(
            "IAM or the key policy in AWS denied the caller. The proxy was not asked: its own denial comes as "
            "KMSInvalidStateException.",
            "The message: principal, action and resource. The key policy.",
            "Allow it in the key policy or the principal's IAM policy.",
        ),
    ),
    Refusal(
        "InvalidCiphertextException",
        Explanation(
            "KMS could not read the ciphertext blob at all, so that the proxy was not asked: cut, encoded twice, or "
            "from another service.",
            "The blob as the caller sends it: raw bytes in an SDK, Base64 on the wire.",
            "Send the blob as Encrypt or GenerateDataKey returned it.",
        ),
    ),
    Refusal(
        "DependencyTimeoutException",
        Explanation(
            "KMS itself was late; a proxy or HSM that is late comes as KMSInvalidStateException.",
            "The AWS Health dashboard.",
            "Retry, with a growing pause.",
        ),
    ),
    Refusal(
        "UnsupportedOperationException",
        Explanation(
            "KMS does not have this operation for keys in an external key store: automatic rotation, import, "
            "multi-Region and asymmetric keys, for example.",
            "The operation in the message.",
            "Use an ordinary KMS key for it. An external key rotates at the proxy or the HSM.",
        ),
    ),
    Refusal(
        "ValidationException",
        Explanation(
            "A parameter of the call to KMS is not what KMS takes.",
            "The message: it names the parameter and the constraint.",
            "Correct the call.",
        ),
    ),
    Refusal(
        "XksProxyUnreachableException",
        Explanation(
            "An ExceptionName of CloudWatch's XksProxyErrors: KMS got no TCP or TLS connection, or no answer in 250 "
            "ms.",
            "The exception message that callers got, which tells these apart.",
            "Run `holdfast check URL --only REACH --only TLS --only CERT --only LAT`, from the network that KMS "
            "uses if you can.",
        ),
    ),
)
"""No two of one exception have the same `says`."""
