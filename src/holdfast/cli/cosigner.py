"""`holdfast audit witness`: cosign the checkpoints of others."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from holdfast.audit.keys import SignatureType, VerifierKey
from holdfast.cli import output
from holdfast.cli.audit_arguments import small_file, verifier_keys
from holdfast.config.kinds import Refused
from holdfast.config.listeners import Address
from holdfast.control.errors import Invalid
from holdfast.control.files import create_file
from holdfast.gateway.cosigner import CheckpointStore, Cosigner, CosignerServer


def witness(
    name: Annotated[str, typer.Argument(help="The witness's own name, such as auditor.example.", show_default=False)],
    *,
    directory: Annotated[Path, typer.Option(help="Where it remembers the last checkpoints.")],
    key_file: Annotated[Path, typer.Option(help="Its Ed25519 key in PEM; made if there is none.")],
    log: Annotated[
        list[str], typer.Option(help="A verifier key of a log that it cosigns, or a file with some. Repeatable.")
    ],
    listen: Annotated[str, typer.Option(help="HOST:PORT, plain HTTP.")] = "127.0.0.1:8009",
) -> None:
    """Cosign checkpoints of audit logs, at a second site or at the auditor's.

    It needs no HSM, catalog or configuration, and runs until it is stopped. What it cosigns goes on from what it
    cosigned before: a log that was rewritten or put back is refused.
    """
    private = _key(key_file)
    key = VerifierKey(name, SignatureType.COSIGNATURE, private.public_key().public_bytes_raw())
    logs: dict[str, list[VerifierKey]] = {}
    for each in verifier_keys(log):
        logs.setdefault(each.name, []).append(each)
    cosigner = Cosigner(
        CheckpointStore(directory), logs, (key, private.sign), now=lambda: output.utc_now().timestamp()
    )
    try:
        address = Address.parse(listen, Path())
    except Refused as refused:
        raise Invalid(f"--listen {refused}", hint="For example 127.0.0.1:8009.") from None
    with CosignerServer((address.host, address.port), cosigner, say=output.say) as server:
        output.data(str(key))
        sys.stdout.flush()  # whoever has started it may wait for this line, in a pipe
        output.say(f"This witness of {len(logs)} logs listens on {listen}. Its verifier key is above.")
        server.serve_forever()


def _key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        create_file(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return fresh
    try:
        found = load_pem_private_key(small_file(path), None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        raise Invalid(f"{path} is not an Ed25519 key in PEM", hint="Name another file, and one is made.")
    return found
