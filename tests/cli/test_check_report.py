"""Where the report of `holdfast check` is written."""

from pathlib import Path

import pytest

from holdfast.cli import check
from holdfast.control.errors import Invalid


def test_a_report_is_written_whole_or_the_one_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.html"
    check._save(report, b"first")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Invalid, match=r"report\.html cannot be written: No space left on device"):
        check._save(report, b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("report.html", b"first")]


def test_a_report_goes_into_a_pipe_as_it_comes(tmp_path: Path) -> None:
    check._save(Path("/dev/null"), b"report")
    link = tmp_path / "latest.html"
    link.symlink_to("today.html")
    check._save(link, b"report")
    assert (link.is_symlink(), link.read_bytes()) == (True, b"report")
