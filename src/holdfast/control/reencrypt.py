"""How to bring what an older generation has encrypted under the active one, and how many calls that takes at most."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.control.lookup import find_generations
from holdfast.control.usage import Together, by_generation, by_kms_key
from holdfast.keys.states import GenerationState
from holdfast.store.reads import Reading
from holdfast.store.usage import OTHERS, usage_of

_OLDER = (GenerationState.RETIRED, GenerationState.SUSPENDED, GenerationState.COMPROMISED)
_OF_SERVICES = {
    "s3": "aws s3 cp s3://BUCKET/OBJECT s3://BUCKET/OBJECT --sse aws:kms --sse-kms-key-id {arn}",
    "ec2": "aws ec2 copy-snapshot --source-region {region} --source-snapshot-id ID --encrypted --kms-key-id {arn}",
    "secretsmanager": "aws secretsmanager update-secret --secret-id SECRET --kms-key-id {arn}",
}
"""What a service encrypts it encrypts again where its data is copied or written anew."""


@dataclass(frozen=True, slots=True)
class OnKmsKey:
    """What one KMS key has asked of the generation, and what to type. Counts are of requests that were seen."""

    kms_key_arn: str
    encrypts: int
    decrypts: int
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """One older generation. `at_most`: ciphertexts that hold on it, as no call makes two.

    That is an upper bound: encryptions are counted before they are made, and what was deleted or overwritten since
    needs no call.
    """

    generation: int
    state: GenerationState
    at_most: int
    kms_keys: Sequence[OnKmsKey]


def advise(state: Reading, keystore: str, external_key_id: str) -> list[Advice]:
    """Advice on each older generation that is not destroyed. Raises NotFound."""
    rows = [row for row in find_generations(state, keystore, external_key_id) if row.state in _OLDER]
    reserved = state.encryption_totals([row.generation_id for row in rows])
    used = by_generation(usage_of(state, keystore, external_key_id))
    found = []
    for row in rows:
        usages = used[row.generation_id]
        seen = sum(one.total.encrypts for one in usages)
        found.append(
            Advice(
                row.generation,
                row.state,
                max(seen, reserved.get(row.generation_id, 0)),
                [
                    OnKmsKey(arn, use.total.encrypts, use.total.decrypts, _commands(arn, use))
                    for (_, _, arn), use in by_kms_key(usages).items()
                    if arn != OTHERS
                ],
            )
        )
    return found


def _commands(arn: str, use: Together) -> tuple[str, ...]:
    """For ciphertexts of the owner's own; for those of services, where these were seen."""
    region = arn.split(":")[3] if arn.count(":") > 4 else "REGION"  # noqa: PLR2004 (arn:P:SERVICE:REGION:ACCOUNT:)
    own = (
        f"aws kms re-encrypt --region {region} --ciphertext-blob fileb://OLD \\",
        f"  --source-key-id {arn} \\",
        f"  --destination-key-id {arn} \\",
        "  --source-encryption-context CONTEXT --destination-encryption-context CONTEXT \\",
        "  --query CiphertextBlob --output text | base64 --decode > NEW",
    )
    services = {name.partition(".")[0] for name in use.names("service")}
    return (
        *own,
        *(line.format(arn=arn, region=region) for service, line in _OF_SERVICES.items() if service in services),
    )
