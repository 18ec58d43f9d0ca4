"""`holdfast init`: everything a proxy needs, in one directory, on SoftHSM.

Each step first looks whether its work is done, and does it whole or not at all; so a run that was interrupted
is completed by the next, and a run over a complete setup changes nothing.
"""

import fcntl
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdfast.config.load import load
from holdfast.config.model import Configuration
from holdfast.control.actions.credentials import IssueCredential
from holdfast.control.actions.keys import RegisterKey
from holdfast.control.actions.keystores import CreateKeystore
from holdfast.control.actor import current_actor
from holdfast.control.audit_key import create_audit_key, verifier_keys
from holdfast.control.catalogs import create_catalog, open_catalog
from holdfast.control.errors import Conflict, Invalid
from holdfast.control.files import PUBLIC_MODE, create_file, private_directory
from holdfast.control.issue import new_access_key_id
from holdfast.control.keys import CKA_ID_BYTES, take_proof
from holdfast.control.kms_connection import (
    KmsConnection,
    connection_of,
    credential_path,
    local_endpoint,
    refresh_files,
)
from holdfast.control.lookup import find_keystore
from holdfast.control.runner import Control
from holdfast.hsm.faults import KeyNotFound
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.setup.local_tls import LocalTls, ensure_local_tls
from holdfast.setup.softhsm import HEALTH_KEY, TOKEN_LABEL, SoftHsm, find_library
from holdfast.setup.toml_text import toml_string
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

HSM_NAME = "softhsm"
"""The `[hsm.NAME]` of a setup made here."""
_REASON = "holdfast init"
"""Of its changes, in their records."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the setup contains. The key's external key id is also its CKA_LABEL."""

    keystore: str
    prefix: UriPathPrefix
    key: ExternalKeyId
    port: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A SoftHSM setup in `directory`."""

    directory: Path
    wanted: Wanted
    now: Callable[[], datetime]

    @property
    def configuration_path(self) -> Path:
        """holdfast.toml."""
        return self.directory / "holdfast.toml"

    @property
    def tls(self) -> LocalTls:
        """Certificate authority, certificate, private key."""
        return LocalTls.below(self.directory / "tls")

    @property
    def console_file(self) -> Path:
        """What the KMS console takes."""
        return self.directory / "kms" / f"{self.wanted.keystore}.json"

    @property
    def curl_file(self) -> Path:
        """The credential, for curl."""
        return self.directory / "kms" / f"{self.wanted.keystore}.curl"

    @property
    def auditor(self) -> Path:
        """The verifier keys of the audit logs."""
        return self.directory / "auditor"

    def run(self) -> Iterator[str]:
        """Does step after step, and says for each what was made or kept. Raises Conflict while another one runs."""
        _require_usable(self.directory)
        library = find_library()
        private_directory(self.directory)
        with _alone(private_directory(self.directory / "softhsm")):
            yield from self._steps(SoftHsm(self.directory / "softhsm", library))

    def _steps(self, softhsm: SoftHsm) -> Iterator[str]:
        softhsm.write_files()
        yield self._token(softhsm)
        yield from self._hsm_keys(softhsm)
        yield self._certificate()
        yield self._configuration(softhsm)
        configuration = load(self.configuration_path)
        if configuration.audit is not None:
            yield self._audit_key(configuration)
        with closing(create_catalog(configuration, now=self.now)) as catalog:
            control = Control(configuration, catalog, actor=current_actor(), now=self.now)
            yield from self._catalog(control, softhsm)
            self._kms_files(connection_of(catalog, self.wanted.keystore, local_endpoint(configuration)))
        yield f"KMS: {self.console_file} is what the KMS console takes"

    def next_steps(self, programs: Path) -> str:
        """What a person can do with a setup that is complete. `programs` is the directory that has `holdfast`."""
        configuration = load(self.configuration_path)
        with closing(open_catalog(configuration, now=self.now)) as catalog:
            connection = connection_of(catalog, self.wanted.keystore, local_endpoint(configuration))
        curl = connection.curl_line(self.wanted.key, curl_file=self.curl_file, authority=self.tls.authority)
        configuration_path = shlex.quote(str(self.configuration_path.absolute()))
        return (
            f"Endpoint:  {connection.endpoint}{connection.prefix.xks_proxy_uri_path}\n"
            f"Key:       {self.wanted.key} (external key id)\n"
            f"For KMS:   {self.console_file} (holds the secret)\n\n"
            f"Ask for the key's metadata, signed as KMS signs:\n\n  {curl}\n\n"
            "Manage it from another terminal:\n\n"
            f"  export PATH={shlex.quote(str(programs))}:$PATH\n"
            f"  export HOLDFAST_CONFIG={configuration_path}\n"
            "  holdfast doctor\n"
            "  holdfast key list"
        )

    def _token(self, softhsm: SoftHsm) -> str:
        made = softhsm.ensure_token()
        return f"Token: {'made' if made else 'kept'} {TOKEN_LABEL!r} in {softhsm.tokens}"

    def _hsm_keys(self, softhsm: SoftHsm) -> Iterator[str]:
        with Inspector(softhsm.settings(HSM_NAME)) as inspector:
            for label in (HEALTH_KEY, str(self.wanted.key)):
                found = inspector.find_keys(label)
                if not found:
                    inspector.generate_aes_256(label, secrets.token_bytes(CKA_ID_BYTES))
                yield f"HSM key: {'kept' if found else 'made'} {label!r} (AES-256, sensitive, not extractable)"

    def _certificate(self) -> str:
        private_directory(self.tls.certificate.parent)
        made = ensure_local_tls(self.tls, now=self.now())
        return f"Certificate: {'made' if made else 'kept'} {self.tls.certificate} for localhost"

    def _configuration(self, softhsm: SoftHsm) -> str:
        if self.configuration_path.exists():
            return f"Configuration: kept {self.configuration_path}"
        text = _TEMPLATE.format(
            port=self.wanted.port,
            library=toml_string(str(softhsm.library)),
            softhsm2_conf=toml_string(softhsm.environment["SOFTHSM2_CONF"]),
            hsm=HSM_NAME,
            token=TOKEN_LABEL,
            health_key=HEALTH_KEY,
            keystore=self.wanted.keystore,
        )
        create_file(self.configuration_path, text.encode(), mode=PUBLIC_MODE)
        return f"Configuration: made {self.configuration_path}"

    def _audit_key(self, configuration: Configuration) -> str:
        try:
            keys, made = verifier_keys(configuration), False
        except KeyNotFound:
            keys, made = create_audit_key(configuration), True
        private_directory(self.auditor)
        refresh_files((self.auditor / f"{key.name.rpartition('/')[2]}.vkey", f"{key}\n".encode()) for key in keys)
        return f"Audit log: {'made' if made else 'kept'} the key that signs; {self.auditor} is for who verifies"

    def _catalog(self, control: Control, softhsm: SoftHsm) -> Iterator[str]:
        name, catalog = self.wanted.keystore, control.catalog
        exists = any(row.name == name for row in catalog.keystores())
        if not exists:
            control.do(CreateKeystore(keystore=name, prefix=self.wanted.prefix.value), reason=_REASON)
        yield f"Keystore: {'kept' if exists else 'made'} {name!r}"
        key = str(self.wanted.key)
        exists = any(row.external_key_id == key for row in catalog.keys(name))
        if not exists:
            with Inspector(softhsm.settings(HSM_NAME)) as inspector:
                (found,) = inspector.find_keys(key)
                register = RegisterKey(
                    keystore=name, external_key_id=key, hsm=HSM_NAME, label=key, proof=take_proof(inspector, found)
                )
            control.do(register, reason=_REASON)
        yield f"Key: {'kept' if exists else 'registered'} {key}"
        # A credential whose secret file is lost is in the catalog still, and signs nothing.
        prefix = find_keystore(catalog, name).prefix
        exists = bool(catalog.snapshot().keystores[prefix.value].credentials)
        if not exists:
            issue = IssueCredential(keystore=name, access_key_id=new_access_key_id().value)
            control.do(issue, reason=_REASON)
        yield f"Credential: {'kept' if exists else 'issued'}"

    def _kms_files(self, connection: KmsConnection) -> None:
        private_directory(self.console_file.parent)
        refresh_files(
            (
                (self.console_file, connection.console_file()),
                (credential_path(self.console_file), connection.credential_file()),
                (self.curl_file, connection.curl_file()),
            )
        )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two at once would each make a token, and one would keep the other's PIN. Raises Conflict."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another `holdfast init` works in {directory.parent}", hint="Wait until it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)


def _require_usable(directory: Path) -> None:
    path = str(directory.absolute())
    if not path.isprintable() or any(sign in path for sign in _UNUSABLE):
        raise Invalid(
            f"{path!a} cannot be the directory: SoftHSM's and our configuration take no path with"
            f" {_UNUSABLE} or a control character",
            hint="Choose another name for it.",
        )


_UNUSABLE = '#="\\'
"""In softhsm2.conf the first begins a comment, and the second a value; in ours the others end a string."""
_TEMPLATE = """\
# Made by `holdfast init`; yours to change. `holdfast config explain` explains every key.

[server]
listen = "127.0.0.1:{port}"

[tls]
certificate = "tls/server.pem"
private_key = "tls/server.key"

[log]
events = "events.jsonl"

[audit]
directory = "audit"
name = "localhost/{keystore}/node"
control_directory = "control-log"
control_name = "localhost/{keystore}/control"
interval_s = 2

[hsm.{hsm}]
profile = "softhsm2"
library = {library}
token = {{ label = "{token}" }}
pin = {{ file = "softhsm/pin" }}
health_key = "{health_key}"
environment = {{ SOFTHSM2_CONF = {softhsm2_conf} }}
"""
