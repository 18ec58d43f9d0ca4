"""What the configuration refers to, as far as it can be looked at without loading an HSM's library."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from holdfast.config.hsm import HsmTable
from holdfast.config.model import Configuration
from holdfast.config.safe_path import distrust_library
from holdfast.doctor.certificate import examine_certificate
from holdfast.doctor.files import examine_files
from holdfast.doctor.policies import examine_policies
from holdfast.finding import Finding, error, note, ok
from holdfast.reading import read_file
from holdfast.secrets.errors import SecretMissing
from holdfast.secrets.reference import Source


def examine_configuration(configuration: Configuration, *, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Findings on libraries, PINs, policies, certificate and files; no HSM, database or network is needed."""
    for name, table in configuration.hsms.items():
        yield from examine_hsm_files(f"hsm.{name}", table)
    yield from examine_policies(configuration.authorization)
    yield from examine_certificate(configuration.tls, now=now())
    yield from examine_files(configuration)


def examine_hsm_files(subject: str, table: HsmTable) -> Iterator[Finding]:
    """Findings on the PKCS#11 library's file, SoftHSM's own configuration and the PIN; nothing is loaded."""
    yield from _library(subject, table)
    yield from _softhsm(subject, table)
    yield from _pin(subject, table)


def _library(subject: str, table: HsmTable) -> Iterator[Finding]:
    library = table.settings.library
    if why := distrust_library(library):
        yield error(
            "library-untrusted",
            subject,
            f"the library {why}",
            why="A user who can change the library controls the proxy and learns its PIN.",
            remedy="Give it, and each directory above it, to root.",
        )
    elif Path(library).is_absolute() and not Path(library).is_file():
        yield error(
            "library-missing",
            subject,
            f"there is no library {library}",
            why="The proxy cannot start without it.",
            remedy="Install the HSM's client, or correct `library`.",
        )
    else:
        yield ok("library", subject, f"{library} is there")


def _softhsm(subject: str, table: HsmTable) -> Iterator[Finding]:
    named = table.settings.environment.get("SOFTHSM2_CONF")
    if named is None:
        return
    try:
        for line in read_file(Path(named)).decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "directories.tokendir":
                Path(value.strip()).stat()
    except OSError as failure:
        yield error(
            "softhsm-files",
            subject,
            f"SOFTHSM2_CONF is {named}, and {failure.filename} cannot be read: {failure.strerror}",
            why="SoftHSM then does not start: C_Initialize returns CKR_GENERAL_ERROR.",
            remedy="Correct the `environment` table, or directories.tokendir in that file, or restore the directory.",
        )


def _pin(subject: str, table: HsmTable) -> Iterator[Finding]:
    if table.pin is None:
        return
    try:
        table.pin.read()
    except SecretMissing as failure:
        if table.pin.source is Source.FILE:
            yield error(
                "pin-unreadable",
                subject,
                f"the PIN: {failure}",
                why="Without its PIN the proxy cannot log in to the token.",
                remedy="Put the PIN where `pin` says, readable by the user that the proxy runs as.",
            )
        else:
            yield note(
                "pin-not-here",
                subject,
                f"the PIN is not looked at: {failure}",
                why="The service gets it from its unit, this command does not.",
            )
    else:
        yield ok("pin", subject, f"the PIN can be read from {table.pin}")
