"""A SoftHSM token of its own in a directory: its library, its configuration, its PINs."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from holdfast.control.errors import Invalid, Prerequisite
from holdfast.control.files import PUBLIC_MODE, create_file, private_directory, replace_file
from holdfast.control.issue import new_pin
from holdfast.hsm.pkcs11.initialise import initialise_token
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.reading import read_file
from holdfast.xks.secret import Secret

TOKEN_LABEL = "holdfast"  # noqa: S105 (the name of a token, not a secret)
HEALTH_KEY = "holdfast-health"
"""CKA_LABEL of the key that health probes use."""
_PLACES = (
    "/usr/lib/softhsm",
    "/usr/lib/*/softhsm",
    "/usr/local/lib/softhsm",
    "/usr/lib64/softhsm",
    "/usr/lib64/pkcs11",
)
_LIBRARY = "libsofthsm2.so"


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """The files of one SoftHSM setup below `directory`."""

    directory: Path
    library: Path

    @property
    def configuration(self) -> Path:
        """What SOFTHSM2_CONF names."""
        return self.directory / "softhsm2.conf"

    @property
    def tokens(self) -> Path:
        """Where SoftHSM keeps its tokens. Lost with it: every key."""
        return self.directory / "tokens"

    @property
    def pin(self) -> Path:
        """The user PIN's file."""
        return self.directory / "pin"

    @property
    def so_pin(self) -> Path:
        """The security officer PIN's file."""
        return self.directory / "so-pin"

    def settings(self, name: str) -> HsmSettings:
        """How Holdfast reaches the token, with its PIN."""
        return HsmSettings(
            name=name,
            profile="softhsm2",
            library=str(self.library),
            token=TokenSelector(label=TOKEN_LABEL),
            health_key=HEALTH_KEY,
            pin=read_pin(self.pin),
            environment=self.environment,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What must be set before the library is loaded."""
        return {"SOFTHSM2_CONF": str(self.configuration.absolute())}

    def write_configuration(self) -> None:
        """The token directory and the configuration that names it."""
        private_directory(self.tokens)
        content = f"directories.tokendir = {self.tokens.absolute()}\nobjectstore.backend = file\nlog.level = ERROR\n"
        if not self.configuration.exists() or self.configuration.read_text() != content:
            replace_file(self.configuration, content.encode(), mode=PUBLIC_MODE)

    def write_files(self) -> None:
        """Directories, configuration and PINs. PINs that exist are kept: a token may have been made with them.

        Raises Invalid where a token is and its user PIN is not.
        """
        private_directory(self.directory)
        self.write_configuration()
        if self._has_token() and not (self.pin.exists() and read_pin(self.pin).reveal()):
            raise Invalid(
                f"the token in {self.tokens} was made with a PIN that {self.pin} no longer holds",
                hint=f"Restore that file. Without it the keys are lost: remove {self.directory} to start again.",
            )
        for path in (self.pin, self.so_pin):
            if not path.exists():
                create_file(path, new_pin().reveal() + b"\n")

    def _has_token(self) -> bool:
        return any(entry.is_dir() for entry in self.tokens.iterdir())

    def ensure_token(self) -> bool:
        """Whether a token was made: only where the directory holds none."""
        if self._has_token():
            return False
        # Made elsewhere and moved here in one step: a run that is interrupted leaves no half-made token.
        with TemporaryDirectory(prefix=".making-", dir=self.directory) as scratch:
            making = SoftHsm(Path(scratch), self.library)
            making.write_configuration()
            initialise_token(
                str(self.library),
                making.environment,
                label=TOKEN_LABEL,
                so_pin=read_pin(self.so_pin),
                pin=read_pin(self.pin),
            )
            for token in making.tokens.iterdir():
                token.rename(self.tokens / token.name)
        return True


def find_library() -> Path:
    """libsofthsm2.so of this system. Raises Prerequisite."""
    for place in _PLACES:
        for library in sorted(Path("/").glob(f"{place[1:]}/{_LIBRARY}")):
            return library
    raise Prerequisite(
        f"SoftHSM is not installed: {_LIBRARY} is in none of {', '.join(_PLACES)}",
        hint="Debian and Ubuntu: apt-get install softhsm2. Fedora and RHEL: dnf install softhsm."
        " For another HSM, write a configuration instead: `holdfast docs` has a page per vendor.",
    )


def read_pin(path: Path) -> Secret:
    """A PIN file's content without the newline at its end."""
    return Secret(read_file(path).removesuffix(b"\n"))
