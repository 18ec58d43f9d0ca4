"""`holdfast check`: whether an XKS endpoint is fit for AWS KMS."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path  # noqa: TC003 (typer reads it at run time)
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.regions import aws_region
from holdfast.control.errors import Invalid, Prerequisite
from holdfast.control.files import PUBLIC_MODE, replace_file
from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration, UsageError
from holdfast.witness.check.finding import Finding, Verdict
from holdfast.witness.check.load.control import LoadRequest, refuse_strangers, run_load
from holdfast.witness.check.report.document import document
from holdfast.witness.check.report.html import html
from holdfast.witness.check.report.junit import junit
from holdfast.witness.check.report.terminal import show
from holdfast.witness.check.run import Fitness, run, select
from holdfast.witness.check.session import Session, TestKeys, Trust
from holdfast.witness.check.wire import WireError, tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.witness.check.finding import Result
    from holdfast.witness.check.load.outcome import LoadOutcome
    from holdfast.witness.check.run import Report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_WIDEST, _WIDTH_OF_A_FILE = 110, 80
_EXIT_CODES = {Fitness.FIT: ExitCode.OK, Fitness.NOT_FIT: ExitCode.ERRORS, Fitness.NOT_JUDGED: ExitCode.FAILED}


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="The XksProxyUriEndpoint, such as https://xks.example.com.")],
    *,
    configuration: Annotated[
        Path, typer.Option("--proxy-config", help="The XKS proxy configuration file (JSON, as for the KMS console).")
    ],
    key: Annotated[
        str | None, typer.Option(help="External key id of a test key that may encrypt and decrypt.")
    ] = None,
    encrypt_only: Annotated[str | None, typer.Option(help="A key that may only encrypt.")] = None,
    decrypt_only: Annotated[str | None, typer.Option(help="A key that may only decrypt.")] = None,
    no_use: Annotated[str | None, typer.Option(help="A key that may do neither.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make only this check or group (CDIV-02, AUTH), and what it needs.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="Trust this CA (PEM) in place of the system's.")] = None,
    client_certificate: Annotated[Path | None, typer.Option(help="Certificate and key (PEM) for mutual TLS.")] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="The endpoint is for tests: waive what only KMS wants (CONF-04, REACH-03, CERT-02 with --ca).",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only failures and the conclusion.")] = False,
    region: Annotated[str, typer.Option(callback=aws_region, help="The AWS Region to sign for.")] = "us-east-1",
    samples: Annotated[int, typer.Option(min=10, max=100_000, help="Calls for the latency on one connection.")] = 100,
    load: Annotated[int | None, typer.Option(help="Then send this many requests/s, open loop (needs --key).")] = None,
    seconds: Annotated[int, typer.Option(help="How long to hold the full load rate.")] = 20,
    yes_load_this_host: Annotated[
        bool, typer.Option("--yes-load-this-host", help="Allow --load against another host than this machine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a self-contained HTML report.")] = None,
) -> None:
    """Check an XKS endpoint, as KMS would see it.

    Sends only GetKeyMetadata, Encrypt, Decrypt, GetHealthStatus and requests that must be refused: nothing that could
    harm a key or data. Exit code: 0 fit (with --local also if KMS itself would refuse name, port or authority),
    11 not fit (or the load was not carried), 1 not judged because no signed call was answered.
    """
    with _usage_errors():
        session = Session(
            Endpoint.parse(url, ProxyConfiguration.read(configuration)),
            TestKeys(key, encrypt_only, decrypt_only, no_use),
            _trust(ca, client_certificate),
            output.utc_now,
            region,
            samples,
            local,
        )
        checks = select(only or [])
        request = None if load is None else _load_request(session, load, seconds, allowed=yes_load_this_host)
        report = run(session, checks, _Progress(len(checks)).checked)
        if request is not None:
            report = replace(report, load=_loaded(session, request, report))
    _write(report, junit_file, html_file)
    if json:
        output.json(document(report))
    else:
        _print(report, quiet=quiet)
    raise typer.Exit(_EXIT_CODES[report.fitness])


def _print(report: Report, *, quiet: bool) -> None:
    if sys.stdout.isatty():
        show(report, Console(width=min(get_terminal_size().columns, _WIDEST)), quiet=quiet)
        return
    text = StringIO()
    show(report, Console(file=text, width=_WIDTH_OF_A_FILE), quiet=quiet)
    output.data("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _trust(ca: Path | None, client_certificate: Path | None) -> Trust:
    for option, path, pair in (
        ("--ca", ca, (_text(ca), None)),
        ("--client-certificate", client_certificate, (None, _text(client_certificate))),
    ):
        try:
            tls_context(*pair, verify=True)
        except OSError as error:
            raise UsageError(
                f"{option} {path} cannot be used: {error.strerror or error}",
                "give a PEM file; that of --client-certificate holds the certificate and its key",
            ) from None
    return Trust(_text(ca), _text(client_certificate))


def _load_request(session: Session, rate: int, seconds: int, *, allowed: bool) -> LoadRequest:
    if session.keys.key is None:
        raise UsageError("--load needs a key to encrypt with", "name one with --key")
    request = LoadRequest(rate, seconds, allowed)
    try:
        refuse_strangers(session, request)
    except OSError as error:
        raise UsageError(f"{session.endpoint.host} has no IPv4 address here: {error}", "check the name") from None
    return request


def _loaded(session: Session, request: LoadRequest, report: Report) -> LoadOutcome | None:
    if report.fitness is Fitness.NOT_JUDGED:
        return None
    try:
        return run_load(session, request, _say_over)
    except (WireError, OSError) as error:
        raise Prerequisite(f"the load test broke off: {error}", hint="is the endpoint still there?") from None
    except Finding as finding:
        output.warning(f"no load test: {finding.evidence}")
        return None
    finally:
        session.close()
        _say_over("")


class _Progress:
    """One line on a terminal's standard error, overwritten; nothing in a log file."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def checked(self, result: Result) -> None:
        self._done += 1
        _say_over("" if self._done == self._total else f"{self._done} of {self._total}: {result.check.id}")
        if result.verdict is Verdict.FAIL and sys.stderr.isatty():
            output.say(f"\r\033[Kfailed: {result.check.id} {result.title}")


def _say_over(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
    elif text and "requests/s" in text:
        output.say(text)


def _write(report: Report, junit_file: Path | None, html_file: Path | None) -> None:
    if junit_file is not None:
        _save(junit_file, junit(report))
    if html_file is not None:
        _save(html_file, html(report).encode())


def _save(path: Path, content: bytes) -> None:
    """Whole, or the report that was there stays; into a pipe or device, as it comes."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            replace_file(path.resolve(), content, mode=PUBLIC_MODE)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}", hint="choose another place") from None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise Invalid(str(error), hint=error.hint) from None
