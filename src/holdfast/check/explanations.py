"""What each failure that AWS KMS reports means for the one who runs the proxy: cause, where to look, what to do.

KMS's own words are in `xks/kms_errors.py`; this is the other half of the table.
"""

from dataclasses import dataclass
from typing import Final

from holdfast.xks.errors import ErrorName
from holdfast.xks.kms_errors import ConnectionErrorCode, Failure


@dataclass(frozen=True, slots=True)
class Explanation:
    """`meaning`: what happened. `look`: where the evidence is. `act`: what to do next."""

    meaning: str
    look: str
    act: str


_BY_REQUEST_ID = "The proxy's log, by the kmsRequestId that CloudTrail shows as requestID"


def _run_check(*only: str) -> str:
    command = " ".join(("holdfast check URL", *(f"--only {name}" for name in only)))
    return f"Run `{command}`, from the network that KMS uses if you can"


FAILURES: Final[dict[ErrorName | Failure, Explanation]] = {
    ErrorName.VALIDATION: Explanation(
        "The proxy found a request of KMS malformed. KMS sends valid requests, so the proxy is stricter than the "
        "spec or something between them changed the body.",
        f"{_BY_REQUEST_ID}: errorMessage names the field. A proxy, WAF or gateway in front that rewrites bodies.",
        f"{_run_check('REQ')}; update the proxy; take rewriting middle boxes out of the path.",
    ),
    ErrorName.INVALID_STATE: Explanation(
        "The external key, or its whole key store, is disabled, deactivated or blocked at the proxy or the HSM.",
        f"{_BY_REQUEST_ID}. With Holdfast: `holdfast key show` and `holdfast keystore show`; also the encryption "
        "count, which can stop a key's Encrypt while Decrypt goes on.",
        "If the block was on purpose, nothing. Else enable the key or unblock the key store where it was blocked, "
        "and retry.",
    ),
    ErrorName.INVALID_CIPHERTEXT: Explanation(
        "The tag did not match under this key: another key stands behind the external key id now, or ciphertext, "
        "encryption context or ciphertext metadata differ from what was encrypted.",
        f"{_BY_REQUEST_ID}. Does Decrypt of fresh ciphertexts work, and only old ones fail? Then the key, or how "
        "the proxy frames the AAD, was changed. The caller's encryption context must be the same, to the letter.",
        "Restore the former key from the HSM's backup under the same id, or the former proxy's AAD framing (with "
        "Holdfast, mark a key taken over from AWS's sample proxy as such). Never delete an external key that has "
        "ciphertexts.",
    ),
    Failure.INVALID_CIPHERTEXT_RETURNED: Explanation(
        "KMS could not open its own part of the ciphertext after the proxy's Decrypt: the proxy returned another "
        "plaintext than was once encrypted, or the caller's ciphertext blob or encryption context is not the "
        "original.",
        f"{_BY_REQUEST_ID}: a 200 for this request. The caller's blob and encryption context.",
        f"{_run_check('DEC')}; if that passes, the fault lies with the blob or the context of the caller.",
    ),
    ErrorName.INVALID_KEY_USAGE: Explanation(
        "The key may not do what was asked: CKA_ENCRYPT or CKA_DECRYPT is false. With a CDIV, Encrypt needs both.",
        "The key's attributes in the HSM, and keyUsage in GetKeyMetadata.",
        "Use a key with both attributes; most HSMs cannot add them later without a copy of the key.",
    ),
    ErrorName.AUTHENTICATION_FAILED: Explanation(
        "The proxy refused KMS's SigV4 signature: the credential differs on the two sides, a clock is wrong by "
        "more than 5 minutes, or something in between changed host, path or body.",
        f"{_BY_REQUEST_ID}: it says which access key id came. `timedatectl` on the proxy. A load balancer or "
        "reverse proxy that rewrites Host or the path.",
        "Send the proxy's current credential with UpdateCustomKeyStore (XksProxyAuthenticationCredential); "
        "effective within 5 minutes. Set the clock by NTP. Make middle boxes pass Host and path unchanged, or pass "
        "TCP through.",
    ),
    ErrorName.ACCESS_DENIED: Explanation(
        "The proxy's own authorization policy denied this principal, KMS key, account, service or operation.",
        f"{_BY_REQUEST_ID}: the event names the denying policy.",
        "Allow the request in the policy if it is legitimate. A kmsOperation that is new to the policy is a usual "
        "cause.",
    ),
    ErrorName.KEY_NOT_FOUND: Explanation(
        "The proxy knows no key of this id, or the HSM has lost it. Ids are case-sensitive.",
        "The XksKeyId in DescribeKey; the key list of the proxy; the token's objects. On nShield, a key made after "
        "the proxy started can be invisible until it reloads its keys.",
        "Register the key under the very id that KMS has: a KMS key's XksKeyId cannot be changed. Restore it from "
        "the HSM's backup if it is gone: nothing else can decrypt its data.",
    ),
    ErrorName.INVALID_URI_PATH: Explanation(
        "The proxy does not serve this path: the XksProxyUriPath in KMS has another prefix than the proxy, lacks "
        "/kms/xks/v1, or is rewritten on the way.",
        "XksProxyUriPath in DescribeCustomKeyStores against the proxy's configuration file; path rules of load "
        "balancers.",
        "Correct it with UpdateCustomKeyStore (XksProxyUriPath, prefix and /kms/xks/v1).",
    ),
    ErrorName.UNSUPPORTED_OPERATION: Explanation(
        "The proxy does not implement what was asked, or a size is beyond what it supports.",
        f"{_BY_REQUEST_ID}: errorMessage.",
        f"{_run_check()}: ENC-08 to ENC-10 show the sizes that the spec demands.",
    ),
    ErrorName.DEPENDENCY_TIMEOUT: Explanation(
        "The proxy answered, but its HSM or another dependency did not in time.",
        "The HSM's state and its network; the proxy's latency split into queue and HSM; HSM failover under way.",
        "Bring the HSM back, or add one: AWS advises at least two. If it is load, ask AWS to lower the request "
        "quota.",
    ),
    ErrorName.THROTTLING: Explanation(
        "The proxy refused for its load: it cannot keep up, or a quota of its own was used up.",
        "The proxy's request rate, queue and HSM session metrics; KMS's ExternalKeyStoreThrottle metric.",
        "Add HSM capacity, or measure with `holdfast check --load` and ask AWS for a quota that the proxy carries.",
    ),
    ErrorName.INTERNAL: Explanation(
        "The proxy, or the HSM behind it, failed in a way that has no better name.",
        f"{_BY_REQUEST_ID}: a PKCS#11 return value, or a defect. With Holdfast: `holdfast doctor`.",
        "Mend what the log names: HSM session or login lost, module restarted, key attributes wrong.",
    ),
    Failure.NO_TCP_CONNECTION: Explanation(
        "No TCP connection from KMS: wrong name or address, port 443 not open, IPv6 only, or a firewall.",
        "DNS A records of the endpoint; firewall and security groups; NLB listener, target group and target "
        "health; for a VPC endpoint service the private DNS name.",
        f"{_run_check('REACH')}.",
    ),
    Failure.NO_TLS_CONNECTION: Explanation(
        "The TLS handshake failed: the certificate is for another name, expired, lacks its intermediates, is not "
        "from an authority on AWS's list, or no suite is shared.",
        "The certificate and chain as served; TLS versions and suites; mutual TLS demanding what KMS does not "
        "present.",
        f"{_run_check('TLS', 'CERT')}; compare the root with AWS's list of trusted certificate authorities.",
    ),
    Failure.SOCKET_TIMEOUT: Explanation(
        "No answer within 250 ms; KMS has tried once more already. Distance, an overloaded proxy, or a slow HSM.",
        "XksProxyLatency in CloudWatch against the proxy's own latency: the difference is the network.",
        f"{_run_check('LAT')}; move the proxy within 35 ms of the Region; add capacity, or lower the quota.",
    ),
    Failure.CONNECTION_LOST: Explanation(
        "The connection broke before the answer was whole: the proxy, or a box in between, closed it.",
        "Restarts of the proxy at that time; idle timeouts of load balancers shorter than the proxy's.",
        "Let the load balancer's idle timeout be longer than the proxy's; drain before a restart.",
    ),
    Failure.MALFORMED_RESPONSE: Explanation(
        "KMS could not read the answer: no JSON (often an HTML page of a box in between), a field missing or "
        "wrong, or a CDIV that does not match.",
        "What the endpoint answers from outside; error pages of gateways.",
        f"{_run_check()}: HEALTH, META, ENC, CDIV and ERR show the field.",
    ),
    Failure.FLEET_UNAVAILABLE: Explanation(
        "GetHealthStatus said that every external key manager is UNAVAILABLE.",
        "The HSMs behind the proxy; with Holdfast `/ready` and `holdfast doctor`.",
        "Bring an HSM back; KMS connects when health says ACTIVE or DEGRADED for one.",
    ),
    Failure.NOT_CONNECTED: Explanation(
        "The key store's ConnectionState is not CONNECTED: it was disconnected, is connecting, or its connection "
        "FAILED.",
        "DescribeCustomKeyStores: ConnectionState and ConnectionErrorCode, which `holdfast explain` also takes.",
        "ConnectCustomKeyStore, and wait about 5 minutes. If FAILED: mend the cause, DisconnectCustomKeyStore, then "
        "connect.",
    ),
}

_RECONNECT = "Then DisconnectCustomKeyStore and ConnectCustomKeyStore: a FAILED key store must be disconnected first."

CONNECTION_ERRORS: Final[dict[ConnectionErrorCode, Explanation]] = {
    ConnectionErrorCode.INTERNAL_ERROR: Explanation(
        "KMS could not finish, for reasons of its own.", "The AWS Health dashboard.", f"Try again. {_RECONNECT}"
    ),
    ConnectionErrorCode.INVALID_CREDENTIALS: Explanation(
        FAILURES[ErrorName.AUTHENTICATION_FAILED].meaning,
        FAILURES[ErrorName.AUTHENTICATION_FAILED].look,
        f"{FAILURES[ErrorName.AUTHENTICATION_FAILED].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.NETWORK_ERRORS: Explanation(
        "The network between KMS and the proxy broke the connection.",
        FAILURES[Failure.CONNECTION_LOST].look,
        f"Try again. If it stays: {FAILURES[Failure.NO_TCP_CONNECTION].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_ACCESS_DENIED: Explanation(
        "The proxy answered the health request with AccessDeniedException, which the spec forbids: health is "
        "exempt from authorization. Or a box in front answered 403.",
        "The proxy's policy, and a WAF or allow list in front of it.",
        f"Exempt /health from the policy (HEALTH-06 of `holdfast check`). {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_INVALID_CONFIGURATION: Explanation(
        FAILURES[ErrorName.INVALID_URI_PATH].meaning,
        FAILURES[ErrorName.INVALID_URI_PATH].look,
        f"{FAILURES[ErrorName.INVALID_URI_PATH].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_INVALID_RESPONSE: Explanation(
        FAILURES[Failure.MALFORMED_RESPONSE].meaning,
        FAILURES[Failure.MALFORMED_RESPONSE].look,
        f"{FAILURES[Failure.MALFORMED_RESPONSE].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_INVALID_TLS_CONFIGURATION: Explanation(
        FAILURES[Failure.NO_TLS_CONNECTION].meaning,
        FAILURES[Failure.NO_TLS_CONNECTION].look,
        f"{FAILURES[Failure.NO_TLS_CONNECTION].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_NOT_REACHABLE: Explanation(
        "KMS cannot reach the proxy, or the proxy says that no HSM can serve. "
        + FAILURES[Failure.NO_TCP_CONNECTION].meaning,
        f"{FAILURES[Failure.NO_TCP_CONNECTION].look} {FAILURES[Failure.FLEET_UNAVAILABLE].look}",
        f"{FAILURES[Failure.NO_TCP_CONNECTION].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_PROXY_TIMED_OUT: Explanation(
        FAILURES[Failure.SOCKET_TIMEOUT].meaning,
        FAILURES[Failure.SOCKET_TIMEOUT].look,
        f"{FAILURES[Failure.SOCKET_TIMEOUT].act} {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION: Explanation(
        "The VPC endpoint service does not meet KMS's demands.",
        "The service needs a Network Load Balancer with subnets in at least two Availability Zones, "
        "cks.kms.<region>.amazonaws.com as an allowed principal, acceptance not required, and a verified private "
        "DNS name equal to the endpoint's.",
        f"Correct what is missing. {_RECONNECT}",
    ),
    ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND: Explanation(
        "There is no VPC endpoint service of this name in the Region and its owner's account, or KMS may not see it.",
        "VpcEndpointServiceName and VpcEndpointServiceOwner in DescribeCustomKeyStores; the service's allowed "
        "principals.",
        "Correct name or owner with UpdateCustomKeyStore, disconnected, or allow cks.kms.<region>.amazonaws.com. "
        f"{_RECONNECT}",
    ),
}
