"""Doctor on the proxy that is running here: what it sees, compared with what a new process sees."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.config.errors import ConfigurationError
from holdfast.config.listeners import Tls
from holdfast.config.model import Configuration
from holdfast.config.policies import parse_policies, read_policies
from holdfast.control.errors import AdminError, NotFound
from holdfast.control.kms_connection import KmsConnection, connection_of, credential_in_use, local_endpoint
from holdfast.doctor.wire import Wire, trusting_any
from holdfast.finding import Finding, error, note, ok, warning
from holdfast.policy.facts import Facts
from holdfast.reading import read_file
from holdfast.store.reads import KeyRow
from holdfast.store.store import Catalog
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import GetKeyMetadataRequest, RequestMetadata
from holdfast.xks.types import ExternalKeyId, Operation

_SUBJECT = "running proxy"
_PRINCIPAL = "arn:aws:iam::123456789012:user/holdfast-doctor"
_ASK = GetKeyMetadataRequest(
    RequestMetadata(
        kms_operation="DescribeKey",
        kms_request_id="holdfast-doctor",
        aws_principal_arn=_PRINCIPAL,
    )
).to_json()
_ASK_PER_WORKER = 2  # The kernel spreads connections over the workers; two per worker reach most of them.


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """The proxy that listens where the configuration says, reached with the catalog's own credentials."""

    configuration: Configuration
    catalog: Catalog
    now: Callable[[], datetime]

    def examine(self, keys_in_hsm: Sequence[KeyRow]) -> Iterator[Finding]:
        """Findings. `keys_in_hsm` are the registered keys that this process, which is new, finds in their HSMs."""
        tls = self.configuration.tls
        if tls is not None and tls.client_ca is not None:
            yield note("proxy-not-asked", _SUBJECT, "skipped: mutual TLS admits only KMS")
            return
        endpoint = local_endpoint(self.configuration)
        try:
            with ExitStack() as stack:
                wires = [
                    stack.enter_context(Wire(endpoint, tls=trusting_any(), now=self.now))
                    for _ in range(self.configuration.server.workers * _ASK_PER_WORKER)
                ]
                yield from self._examine(wires, endpoint, keys_in_hsm)
        except AdminError as failure:
            yield note(
                "proxy-not-running",
                _SUBJECT,
                f"skipped: {failure.message}",
                remedy="Run doctor again while the proxy runs: only then can it see what the proxy sees.",
            )

    def _examine(self, wires: list[Wire], endpoint: str, keys_in_hsm: Sequence[KeyRow]) -> Iterator[Finding]:
        if self.configuration.tls is not None:
            shown = wires[0].certificate
            if shown != _certificate(self.configuration.tls):
                # Another program may be listening there: it is not sent a signature.
                yield warning(
                    "proxy-other-certificate",
                    _SUBJECT,
                    f"{endpoint} shows another certificate than the configured file holds",
                    why="Another program has the port, or the proxy could not load the new file.",
                    remedy="See who listens there (`ss -tlnp`), and read the proxy's log.",
                )
                return
        ready = wires[0].is_ready()
        if ready is None:
            # It is not sent a signature either: it could be used for five minutes.
            yield note(
                "proxy-foreign",
                _SUBJECT,
                f"skipped: what answers at {endpoint} is not Holdfast",
                why="Another program has the port; during a migration, the proxy that Holdfast will replace.",
                remedy="See who listens there (`ss -tlnp`). Holdfast cannot start before that program has stopped.",
            )
            return
        if ready:
            yield ok("proxy-ready", _SUBJECT, f"{endpoint} says that it is ready")
        else:
            yield error(
                "proxy-not-ready",
                _SUBJECT,
                f"{endpoint} says that it is not ready",
                why="No HSM answers it at the moment, or it has not finished starting.",
                remedy="If the findings above are good, the HSM is well and the proxy has lost it: read its log.",
            )
        denies = self._policies()
        for row in keys_in_hsm:
            yield from self._key(wires, row, expected=None if denies is None else denies(row))

    def _policies(self) -> Callable[[KeyRow], bool] | None:
        """Whether the policies in the file deny doctor's request for a key; None where the file is not valid."""
        authorization = self.configuration.authorization
        if authorization is None:
            return lambda _: False
        try:
            policies = parse_policies(read_policies(authorization.policies))
        except ConfigurationError:
            return None  # Reported by the findings on the file.

        def denies(row: KeyRow) -> bool:
            facts = Facts(
                operation=Operation.GET_KEY_METADATA,
                keystore=row.keystore,
                external_key_id=row.external_key_id,
                aws_principal_arn=_PRINCIPAL,
                kms_operation="DescribeKey",
                kms_key_arn=None,
                kms_via_service=None,
                aws_source_vpc=None,
                aws_source_vpce=None,
            )
            return policies.decide(facts).denial is not None

        return denies

    def _key(self, wires: list[Wire], row: KeyRow, *, expected: bool | None) -> Iterator[Finding]:
        """`expected` is whether the policies in the file deny it; None where they cannot be read."""
        subject = f"key {row.keystore}/{row.external_key_id}"
        try:
            connection = self._connection(row.keystore)
        except NotFound:
            return  # Reported by the findings on the catalog.
        key = ExternalKeyId(row.external_key_id)
        answers = [wire.call(connection, key, Operation.GET_KEY_METADATA, _ASK) for wire in wires]
        refused = [answer.error for answer in answers if answer.error]
        denied = {ErrorName.ACCESS_DENIED in answer.error for answer in answers}
        if expected is not None and denied != {expected}:
            yield error(
                "policies-not-running",
                _SUBJECT,
                f"the running proxy {'permits' if expected else 'denies'} a request that the policies in the file"
                f" {'deny' if expected else 'permit'} (GetKeyMetadata for {row.keystore}/{row.external_key_id})",
                why="It runs with other policies, or with none: it could not load the file when it changed.",
                remedy="`systemctl reload holdfast`, or SIGHUP; its log says whether it took the file.",
            )
        elif any(ErrorName.KEY_NOT_FOUND in refusal for refusal in refused):
            frozen = self._is_frozen(row)
            yield error(
                "key-after-start",
                subject,
                f"the key {row.label!r} is in the HSM, but the running proxy does not find it: it was created after"
                " the proxy started",
                why="This module shows a process only the keys that were there when the process called C_Initialize"
                + (" (nShield, CKNFAST_ASSUME_SINGLE_PROCESS=1, which is its default)." if frozen else "."),
                remedy="Reload the proxy on each machine (`systemctl reload holdfast`, or SIGHUP): it initialises the"
                " module again."
                + (
                    ' Or set CKNFAST_ASSUME_SINGLE_PROCESS = "0" in the environment table, at some cost in speed.'
                    if frozen
                    else ""
                ),
            )
        elif True in denied:
            yield note(
                "proxy-denies-doctor",
                subject,
                "not asked: the policies deny doctor's GetKeyMetadata",
                why="So doctor cannot see whether the running proxy finds the key in its HSM.",
                remedy=f'Permit GetKeyMetadata to AwsPrincipal::"{_PRINCIPAL}", if you want it to.',
            )
        elif refused:
            yield warning(
                "proxy-refuses-key",
                subject,
                f"the running proxy answers GetKeyMetadata with {refused[0]}",
                why="KMS gets the same answer.",
                remedy="The proxy's event log names the cause under the request id holdfast-doctor.",
            )

    def _connection(self, keystore: str) -> KmsConnection:
        used = credential_in_use(self.catalog, keystore)
        return connection_of(self.catalog, keystore, local_endpoint(self.configuration), access_key_id=used)

    def _is_frozen(self, row: KeyRow) -> bool:
        return self.configuration.hsms[row.hsm].settings.profile == "nshield"


def _certificate(tls: Tls) -> bytes | None:
    try:
        return x509.load_pem_x509_certificates(read_file(tls.certificate))[0].public_bytes(Encoding.DER)
    except (OSError, ValueError):
        return None
