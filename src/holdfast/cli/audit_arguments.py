"""What the commands of `holdfast audit` take: logs, verifier keys, small files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from holdfast.audit.faults import Malformed
from holdfast.audit.keys import VerifierKey
from holdfast.audit.note import MAX_NOTE
from holdfast.audit.tiles import Read
from holdfast.cli.output import printable
from holdfast.control.errors import Invalid
from holdfast.reading import open_file
from holdfast.store.log_directory import directory_reader

KeyOption = Annotated[
    list[str],
    typer.Option("--key", help="A verifier key of the log (NAME+ID+KEY), or a file with one. Repeatable."),
]


def verifier_keys(texts: Iterable[str]) -> list[VerifierKey]:
    """The verifier keys that stand in the arguments, or in files that these name."""
    keys = []
    for text in texts:
        lines = [text] if text.count("+") >= 2 else small_file(Path(text)).decode(errors="replace").split()  # noqa: PLR2004 (NAME+ID+KEY)
        if not lines:
            raise Invalid(f"{printable(text)} holds no verifier key", hint="`holdfast audit key show` prints it.")
        try:
            keys += [VerifierKey.parse(line) for line in lines]
        except Malformed as error:
            raise Invalid(
                f"{printable(text)} is not a verifier key: {error.message}",
                hint="A verifier key looks like NAME+8 hexadecimal digits+Base64, or is such a line in a file.",
            ) from None
    return keys


def small_file(path: Path) -> bytes:
    """A key, checkpoint or proof. Raises Invalid for one that cannot be read."""
    try:
        with open_file(path, pipe=True) as file:
            return file.read(MAX_NOTE + 1)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint="Name a file that exists.") from None


def log_reader(log: Path) -> Read:
    """Reads the files of a log. Raises Invalid for what is not a directory."""
    if not log.is_dir():
        raise Invalid(f"{log} is not a directory", hint="Name the directory that holds the file `checkpoint`.")
    return directory_reader(log)
