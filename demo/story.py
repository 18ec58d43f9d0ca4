# ruff: noqa: INP001 (a script, not a package)
"""The story of one letter: an application, AWS KMS, the Holdfast proxy and an HSM, on one machine.

Starts the real proxy (`holdfast init`, `holdfast serve`) on SoftHSM and a local AWS KMS (`holdfast kms`), then acts
as an application that uses boto3 as it would in AWS. Ends what it started; exits 1 if the story goes wrong.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

import boto3  # type: ignore[import-untyped]  # boto3 has no annotations
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from holdfast.trust import client_context

T = TypeVar("T")

LETTER = b"""Dear Alice,
the patient in room 12 may go home on Friday. Nobody but the two of us shall know before.
Bob
"""
CONTEXT = {"document": "letter-1"}
KEYSTORE = "demo"
PATIENCE = 120.0
"""Seconds that anything may take to start."""

out = Console(highlight=False, width=min(shutil.get_terminal_size().columns, 110))


class WentWrong(Exception):
    """The story cannot go on; the message says why."""


@dataclass(frozen=True)
class Stage:
    """Where everything is."""

    directory: Path
    proxy_port: int
    kms_port: int

    @property
    def configuration(self) -> Path:
        """The proxy's configuration file."""
        return self.directory / "holdfast.toml"

    def holdfast(self, *arguments: str) -> str:
        """What a holdfast command prints on standard output."""
        command = [sys.executable, "-m", "holdfast", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
        if done.returncode != 0:
            raise WentWrong(f"`holdfast {' '.join(arguments)}` failed:\n{done.stderr}")
        return done.stdout

    def administer(self, *arguments: str) -> str:
        """As `holdfast`, on the proxy's configuration."""
        return self.holdfast(*arguments, "--config", str(self.configuration))

    def event(self, file: str, **fields: str) -> dict[str, Any]:
        """The last event in a log with these fields; it may be about to be written."""

        def find() -> dict[str, Any] | None:
            lines = (self.directory / file).read_text().splitlines()
            events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]  # noqa: TID251
            matching = [each for each in events if fields.items() <= each.items()]
            return matching[-1] if matching else None

        return until(find, f"an event with {fields} in {file}")


def main() -> int:
    """The exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory, ExitStack() as stack:
            tell(Stage(Path(directory), free_port(), free_port()), stack)
    except WentWrong as error:
        out.print(f"\n[bold red]The story went wrong.[/] {escape(str(error))}")
        return 1
    return 0


def tell(stage: Stage, stack: ExitStack) -> None:
    """The whole story."""
    out.rule("[bold]Holdfast: who holds the key?")
    raise_the_curtain(stage, stack)
    kms = boto3.client("kms")
    key = kms_meets_the_proxy(stage, kms)
    sealed = stage.directory / "letter.sealed"
    application_seals_a_letter(stage, kms, key, sealed)
    application_reads_it(kms, sealed, "4. Any time later: the application reads the letter")
    glass_is_broken(stage, kms, sealed)
    glass_is_mended(stage, kms, sealed)
    epilogue(stage)


def raise_the_curtain(stage: Stage, stack: ExitStack) -> None:
    """Starts HSM, proxy and KMS."""
    chapter("1. The cast")
    stage.holdfast("init", "--directory", str(stage.directory), "--name", KEYSTORE, "--port", str(stage.proxy_port))
    stack.enter_context(process(stage, "proxy", "serve", "--config", str(stage.configuration)))
    authority, credentials = stage.directory / "tls" / "ca.pem", stage.directory / "credentials"
    until(lambda: is_ready(f"https://localhost:{stage.proxy_port}/ready", authority), "the proxy to be ready")
    stack.enter_context(
        process(
            stage,
            "kms",
            *("kms", "--listen", f"127.0.0.1:{stage.kms_port}", "--credentials", str(credentials)),
            *("--ca", str(authority), "--route", f"localhost=127.0.0.1:{stage.proxy_port}"),
            *("--connection-delay", "1"),
        )
    )
    until(lambda: is_ready(f"http://127.0.0.1:{stage.kms_port}/metrics"), "the local KMS")
    # All that makes an application use this KMS and not Amazon's.
    os.environ.update(
        AWS_ENDPOINT_URL_KMS=f"http://127.0.0.1:{stage.kms_port}",
        AWS_SHARED_CREDENTIALS_FILE=str(credentials),
        AWS_DEFAULT_REGION="us-east-1",
        AWS_MAX_ATTEMPTS="1",
    )
    said("cyan", "Application", "This script. It uses boto3, as everyone does.")
    said("yellow", "AWS KMS", f"A local double of it, at http://127.0.0.1:{stage.kms_port}.")
    said("green", "Proxy", f"Holdfast, at https://localhost:{stage.proxy_port}: on your own premises.")
    said("magenta", "HSM", f"SoftHSM here, a real one in production. It says: {hsm_says(stage)}.")


def kms_meets_the_proxy(stage: Stage, kms: Any) -> str:
    """Connects KMS to the proxy; the ARN of a KMS key that stands for the HSM's key."""
    chapter("2. KMS is told of the proxy")
    text = (stage.directory / "kms" / f"{KEYSTORE}.json").read_text()
    configuration = json.loads(text)  # noqa: TID251 (the file is our own)
    store = kms.create_custom_key_store(
        CustomKeyStoreName=KEYSTORE,
        CustomKeyStoreType="EXTERNAL_KEY_STORE",
        XksProxyConnectivity="PUBLIC_ENDPOINT",
        XksProxyUriEndpoint="https://localhost",
        **configuration,
    )["CustomKeyStoreId"]
    said("yellow", "AWS KMS", f"CreateCustomKeyStore {store}: asks the proxy for its health, and finds it well.")
    kms.connect_custom_key_store(CustomKeyStoreId=store)

    def state() -> str | None:
        entry = kms.describe_custom_key_stores(CustomKeyStoreId=store)["CustomKeyStores"][0]
        return None if entry["ConnectionState"] == "CONNECTING" else str(entry["ConnectionState"])

    if (reached := until(state, "the key store to connect")) != "CONNECTED":
        raise WentWrong(f"the key store is {reached}")
    said("yellow", "AWS KMS", "ConnectCustomKeyStore: CONNECTED. (Amazon takes about five minutes for it.)")
    key: str = kms.create_key(Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store, XksKeyId=f"{KEYSTORE}-key")[
        "KeyMetadata"
    ]["Arn"]
    said(
        "yellow",
        "AWS KMS",
        f"CreateKey {key.rpartition('/')[2]}: half of it is in KMS, the other half is '{KEYSTORE}-key' in the HSM.",
    )
    return key


def application_seals_a_letter(stage: Stage, kms: Any, key: str, sealed: Path) -> None:
    """Envelope encryption of the letter, and what each party saw of it."""
    chapter("3. The application seals a letter")
    response = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    nonce = os.urandom(12)
    ciphertext = AESGCM(response["Plaintext"]).encrypt(nonce, LETTER, None)
    envelope, data_key_bytes = response["CiphertextBlob"], len(response.pop("Plaintext"))
    sealed.write_bytes(len(envelope).to_bytes(2) + envelope + nonce + ciphertext)
    if LETTER[:11] in sealed.read_bytes():
        raise WentWrong("the sealed file holds the letter in clear")
    request_id = response["ResponseMetadata"]["RequestId"]
    at_kms = stage.event("kms.log", request_id=request_id)
    at_proxy = stage.event("events.jsonl", kmsRequestId=request_id)
    said(
        "cyan",
        "Application",
        f"GenerateDataKey, for {CONTEXT}: gets a new data key, {data_key_bytes} bytes in clear, and the same",
        f"sealed, in {len(envelope)} bytes. It encrypts the letter with the first and forgets it, and keeps the",
        "second beside the letter.",
        "(This is envelope encryption; S3, EBS and the others do the same.)",
    )
    said(
        "yellow",
        "AWS KMS",
        f"Makes the data key for {at_kms['principal_arn']}, seals it with its own half of the key, then has the",
        f"proxy seal the result: {milliseconds(at_kms)} ms.",
    )
    said(
        "green",
        "Proxy",
        "Sees only what KMS has sealed already: it cannot read the data key. Its event, under the request id that",
        "CloudTrail shows:",
    )
    show_event(at_proxy)
    said(
        "magenta",
        "HSM",
        "Seals it once more, and opens it again to prove that it can, since KMS asks for that: "
        f"{at_proxy['milliseconds']['hsm']} ms. The key itself has never left it.",
    )


def application_reads_it(kms: Any, sealed: Path, title: str) -> None:
    """Reads the letter, through KMS, proxy and HSM."""
    chapter(title)
    if open_letter(kms, sealed) != LETTER:
        raise WentWrong("the letter has changed")
    said(
        "cyan",
        "Application",
        "Decrypt: sends the sealed data key to KMS, KMS to the proxy, the proxy to the HSM. It reads:",
    )
    out.print(Padding(f"[italic]{LETTER.decode().strip()}[/]", (0, 0, 0, 15)))


def glass_is_broken(stage: Stage, kms: Any, sealed: Path) -> None:
    """Blocks the key store and shows that nothing is readable."""
    chapter("5. Break glass")
    said(
        "bold",
        "You",
        f"Something is wrong in the cloud. On your premises: [bold]holdfast keystore block {KEYSTORE} --yes[/]",
    )
    started = time.monotonic()
    stage.administer("keystore", "block", KEYSTORE, "--yes")
    refusal = until(lambda: refused(kms, sealed), "the block to take effect")
    error = refusal.response["Error"]
    said(
        "cyan",
        "Application",
        f"Cannot read its letter any more, {time.monotonic() - started:.1f} s after you typed that. KMS says:",
        f"[red]{error['Code']}[/]: {error['Message']}",
    )
    said("green", "Proxy", "Says why, to you alone:")
    show_event(stage.event("events.jsonl", kmsRequestId=refusal.response["ResponseMetadata"]["RequestId"]))
    said("magenta", "HSM", "Was not even asked.")


def glass_is_mended(stage: Stage, kms: Any, sealed: Path) -> None:
    """Unblocks, and reads the letter."""
    stage.administer("keystore", "unblock", KEYSTORE, "--yes")
    until(lambda: refused(kms, sealed) is None, "the end of the block")
    application_reads_it(kms, sealed, f"6. The end of the block: $ holdfast keystore unblock {KEYSTORE} --yes")


def epilogue(stage: Stage) -> None:
    """Where to go from here."""
    chapter("The end")
    metrics = [line for line in fetch(f"http://127.0.0.1:{stage.kms_port}/metrics").splitlines() if "_count{" in line]
    calls = sum(float(line.rpartition(" ")[2]) for line in metrics)
    out.print(f"KMS called the proxy {calls:.0f} times. Nobody but the HSM ever had its key.")
    out.print("Try it yourself: `make run` for the proxy, docs/how-to/local-kms.md for the local KMS.")


def open_letter(kms: Any, sealed: Path) -> bytes:
    """The letter in clear. Raises ClientError in KMS's words."""
    raw = sealed.read_bytes()
    length = int.from_bytes(raw[:2])
    envelope, nonce, ciphertext = raw[2 : 2 + length], raw[2 + length : 14 + length], raw[14 + length :]
    data_key = kms.decrypt(CiphertextBlob=envelope, EncryptionContext=CONTEXT)["Plaintext"]
    return AESGCM(data_key).decrypt(nonce, ciphertext, None)


def refused(kms: Any, sealed: Path) -> ClientError | None:
    """KMS's refusal to open the letter; None if it opens."""
    try:
        open_letter(kms, sealed)
    except ClientError as error:
        return error
    return None


def hsm_says(stage: Stage) -> str:
    """What the HSM reports of the key's attributes, as `holdfast doctor` read them."""
    command = [sys.executable, "-m", "holdfast", "doctor", "--config", str(stage.configuration)]
    # The exit code tells the worst finding, which is not the subject here.
    report = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout  # noqa: S603
    found = [line for line in report.splitlines() if f"key {KEYSTORE}/{KEYSTORE}-key:" in line]
    return found[0].partition(": ")[2].partition("  [")[0] if found else ""


def show_event(event: dict[str, Any]) -> None:
    """The fields of a proxy event that matter to a newcomer."""
    shown = ("kmsRequestId", "kmsOperation", "awsPrincipalArn", "externalKeyId", "decision", "errorName", "detail")
    table = Table.grid(padding=(0, 2))
    for name in shown:
        if name in event:
            table.add_row(f"[dim]{name}[/]", str(event[name]))
    spent = ", ".join(f"{name} {value}" for name, value in event["milliseconds"].items())
    table.add_row("[dim]milliseconds[/]", spent)
    out.print(Padding(table, (0, 0, 0, 15)))


def milliseconds(kms_event: dict[str, Any]) -> float:
    """How long KMS waited for the proxy."""
    return float(sum(call["milliseconds"] for call in kms_event["xks"]))


def chapter(title: str) -> None:
    """A heading."""
    out.print(f"\n[bold]{title}[/]")


def said(colour: str, who: str, *sentences: str) -> None:
    """What a party does or sees: its name, and a paragraph beside it."""
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(width=11)
    line.add_column(ratio=1, overflow="fold")
    line.add_row(f"[{colour}]{who}[/]", " ".join(sentences))
    out.print(Padding(line, (0, 0, 0, 2)))


@contextmanager
def process(stage: Stage, name: str, *arguments: str) -> Iterator[None]:
    """A holdfast process with its output in NAME.log, told to end at the end."""
    stage.directory.mkdir(parents=True, exist_ok=True)
    with (stage.directory / f"{name}.log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "holdfast", *arguments]
        running = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            yield
        except WentWrong as error:
            if running.poll() is None:
                raise
            said_last = (stage.directory / f"{name}.log").read_text()
            raise WentWrong(f"{error} `holdfast {arguments[0]}` has ended:\n{said_last}") from None
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(PATIENCE)


def until(find: Callable[[], T | None], what: str) -> T:
    """What `find` finds. Raises WentWrong if it finds nothing in time."""
    deadline = time.monotonic() + PATIENCE
    while not (found := find()):
        if time.monotonic() > deadline:
            raise WentWrong(f"Waited {PATIENCE:.0f} s for {what}.")
        time.sleep(0.05)
    return found


def is_ready(url: str, authority: Path | None = None) -> bool:
    """Whether a URL answers 200."""
    try:
        return bool(fetch(url, authority) or True)
    except (URLError, OSError):
        return False


def fetch(url: str, authority: Path | None = None) -> str:
    """What a URL on this machine answers."""
    context = client_context(authority) if authority else None
    with urlopen(url, timeout=5, context=context) as response:  # noqa: S310 (addresses of our own)
        text: str = response.read().decode()
    return text


def free_port() -> int:
    """A TCP port that nobody has just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())
