"""The package's source files."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "holdfast"
SOURCES = sorted(PACKAGE.rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "fuzz").glob("*.py"))]


def name(path: Path) -> str:
    """The path as people read it."""
    return str(path.relative_to(ROOT))
