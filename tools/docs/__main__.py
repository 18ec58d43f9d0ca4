"""Writes the generated reference pages: `python -m tools.docs [FOLDER]`, by default to docs/reference."""

import sys
from pathlib import Path

from tools.docs import GENERATED


def write(folder: Path) -> None:
    """Every generated page into `folder`, which is made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in GENERATED.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
