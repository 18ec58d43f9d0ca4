"""What the documentation's site needs beyond mkdocs (mkdocs.yml): anchors as on GitHub, and files outside docs/."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel  # type: ignore[import-not-found]  # only in .venv-docs

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_OUTSIDE = "repository"
"""The site's folder for files of the repository that lie outside docs/ and are linked to."""
_PROJECT = ("Contributing", "Security", "Changelog")
"""Pages of the repository's root."""
_LINK = re.compile(r"(\]\()([^)\s#]+)")


def github_anchor(heading: str, separator: str) -> str:
    """The fragment under which GitHub makes a heading reachable: links then work in both places."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: Any) -> Any:
    """Every decision is in the menu."""
    decisions = sorted(f"decisions/{path.name}" for path in (_DOCS / "decisions").glob("[0-9]*.md"))
    config.nav[-1]["Understand"].append({"Decisions": ["decisions/README.md", *decisions]})
    config.nav.append({"Project": [{name: f"{_OUTSIDE}/{name.upper()}.md"} for name in _PROJECT]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Files outside docs/ that pages link to are part of the site."""
    pages = [_source(PurePosixPath(page.src_uri)) for page in files.documentation_pages()]
    project = [_DOCS.parent / f"{name.upper()}.md" for name in _PROJECT]
    linked = {target for page in [*pages, *project] for target in _outside(page)}
    for path in sorted({*linked, *project}):
        uri = f"{_OUTSIDE}/{path.relative_to(_DOCS.parent).as_posix()}"
        inclusion = InclusionLevel.NOT_IN_NAV if path.name == "README.md" else InclusionLevel.INCLUDED
        files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files outside docs/ lead to their copies, and links of those lead back."""
    del config, files
    here = PurePosixPath(page.file.src_uri)
    return _LINK.sub(lambda match: match[1] + _rewritten(here, match[2]), markdown)


def _source(uri: PurePosixPath) -> Path:
    """The file that a page of the site is made from."""
    if uri.parts[0] == _OUTSIDE:
        return _DOCS.parent.joinpath(*uri.parts[1:])
    return _DOCS / uri


def _outside(page: Path) -> set[Path]:
    """The files outside docs/ that a page links to."""
    targets = {(page.parent / match[2]).resolve() for match in _LINK.finditer(page.read_text())}
    return {target for target in targets if target.is_file() and not target.is_relative_to(_DOCS)}


def _rewritten(here: PurePosixPath, link: str) -> str:
    target = (_source(here).parent / link).resolve()
    if re.match(r"[a-z]+:", link) or not target.exists():
        return link
    if target.is_relative_to(_DOCS):
        uri = target.relative_to(_DOCS)
    else:
        uri = Path(_OUTSIDE) / target.relative_to(_DOCS.parent)
    return "../" * (len(here.parts) - 1) + uri.as_posix()
