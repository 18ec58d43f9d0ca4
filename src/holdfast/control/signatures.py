"""Approvals as SSH signatures, made and verified by OpenSSH's `ssh-keygen -Y`, so that anybody can verify them again.

What is signed is the plan's digest in hexadecimal with a newline, in the namespace NAMESPACE:

    echo DIGEST | ssh-keygen -Y verify -f ALLOWED_SIGNERS -I NAME -n change@holdfast -s SIGNATURE
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from holdfast.control.errors import Denied, Invalid, Prerequisite

NAMESPACE = "change@holdfast"
"""Of the signature, so that one made for anything else (a login, a commit, mail) is never an approval."""
_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
_LEAST_RSA_BITS = 3072
_KEY = re.compile(r"([a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)(?: [^\r\n]*)?\n?")
_MOST_BYTES = 16_384
_TIMEOUT = 10.0
_TOUCH_TIMEOUT = 120.0
"""Seconds, also for a person who looks for the key that is to be touched."""


def parse_public_key(text: str) -> str:
    """The key as `TYPE BASE64`, without its comment. Raises Invalid for what is none, or is too weak."""
    match = _KEY.fullmatch(text)
    if match is None or match[1] not in _TYPES:
        raise Invalid(
            "this is not the public key of an SSH key that can approve",
            hint=f"It is one line, as in ~/.ssh/id_ed25519.pub; its type is one of {', '.join(_TYPES)}.",
        )
    key = f"{match[1]} {match[2]}"
    with TemporaryDirectory(prefix="holdfast-") as directory:
        file = Path(directory) / "key.pub"
        file.write_text(f"{key}\n")
        found = _run("-l", "-f", file)
    bits = found.stdout.partition(" ")[0]
    if found.returncode or not bits.isdecimal():
        raise Invalid("ssh-keygen does not read this public key", hint="Copy the whole line of the .pub file.")
    if match[1] == "ssh-rsa" and int(bits) < _LEAST_RSA_BITS:
        raise Invalid(
            f"an RSA key of {bits} bits is too weak to approve changes",
            hint="`ssh-keygen -t ed25519` makes a new key.",
        )
    return key


def sign(digest: str, key: Path) -> str:
    """The signature by a private key, or by the agent for a public one; may ask for a passphrase or a touch.

    Raises Invalid, Prerequisite.
    """
    done = _run("-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, given=_message(digest), asks=True)
    if done.returncode:
        raise Invalid(f"ssh-keygen did not sign with {key}", hint="Its own message is above.")
    return done.stdout


def signer(digest: str, signature: str, keys: Mapping[str, str]) -> str:
    """Whose signature over the digest it is, of the operators with these public keys.

    Raises Denied: nobody's of these, of another digest, or for another purpose.
    """
    if len(signature) > _MOST_BYTES or not signature.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise Invalid("this is not an SSH signature", hint=f"`ssh-keygen -Y sign -n {NAMESPACE}` makes one.")
    with TemporaryDirectory(prefix="holdfast-") as directory:
        allowed, file = Path(directory) / "allowed_signers", Path(directory) / "signature"
        allowed.write_text("".join(allowed_signer(name, key) for name, key in keys.items()))
        file.write_text(signature)
        found = _run("-Y", "find-principals", "-f", allowed, "-s", file)
        name = found.stdout.partition("\n")[0]
        if found.returncode or name not in keys:
            raise Denied(
                "the signature is by a key that belongs to no operator",
                hint="`holdfast operator list` shows those who are enrolled.",
            )
        verified = _run(
            "-Y", "verify", "-f", allowed, "-I", name, "-n", NAMESPACE, "-s", file, given=_message(digest)
        )
    if verified.returncode:
        raise Denied(
            f"the signature is by the key of {name}, but not over this plan (digest {digest})",
            hint=f"Sign this digest, with a newline at its end, in the namespace {NAMESPACE}.",
        )
    return name


def allowed_signer(name: str, key: str) -> str:
    """The operator's line of a file for `ssh-keygen -Y verify -f`."""
    return f'{name} namespaces="{NAMESPACE}" {key}\n'


def _message(digest: str) -> str:
    return f"{digest}\n"


def _run(*arguments: str | Path, given: str = "", asks: bool = False) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 (a fixed program, and files of ours)
            ["ssh-keygen", *map(str, arguments)],  # noqa: S607 (the one that the user would run)
            input=given,
            stdout=subprocess.PIPE,
            stderr=None if asks else subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=_TOUCH_TIMEOUT if asks else _TIMEOUT,
        )
    except FileNotFoundError:
        raise Prerequisite(
            "ssh-keygen is not installed, and approvals are SSH signatures",
            hint="Install OpenSSH's client: `apt install openssh-client`.",
        ) from None
    except subprocess.TimeoutExpired:
        raise Invalid("ssh-keygen did not answer in time", hint="Was the security key touched?") from None
