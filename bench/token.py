"""A token with so many keys: `python -m bench.token DIRECTORY COUNT`, in a process of its own."""

import sys
from pathlib import Path

from tests.server.token import KEYS, KeySpec, make_token

if __name__ == "__main__":
    fillers = max(0, int(sys.argv[2]) - 2)
    # The health key is the second one.
    make_token(Path(sys.argv[1]), (*KEYS[:1], *(KeySpec(f"filler-{number}") for number in range(fillers))))
