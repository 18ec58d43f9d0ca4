"""Who asks for a change, as the operating system says: asserted, not proven."""

import os
import pwd
import re
import socket

from holdfast.audit.records import Actor

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}")


def current_actor() -> Actor:
    """The user of this process; behind sudo the one that sudo names, which the process's user could have invented."""
    user = _name_of(os.geteuid())
    behind = os.environ.get("SUDO_USER", "")
    where = f"{user}@{socket.gethostname()}"
    if behind != user and _USER.fullmatch(behind):
        return Actor(name=behind, known_by="sudo", where=where)
    return Actor(name=user, known_by="os-user", where=where)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
