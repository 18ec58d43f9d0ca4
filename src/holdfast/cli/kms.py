"""`holdfast kms`: a local AWS KMS for development and tests."""

import configparser
import os
import re
import signal
import ssl
import sys
import tempfile
from contextlib import ExitStack, closing
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.output import say, utc_now, warning
from holdfast.cli.regions import aws_region
from holdfast.control.errors import Invalid, Prerequisite
from holdfast.doctor.wire import trusting
from holdfast.reading import MOST_PEM, read_file
from holdfast.witness.kms.settings import Address, Settings, VpcEndpointService

app = typer.Typer()

_LAST_PORT = 65535
_ACCOUNT = re.compile(r"[0-9]{12}")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")


@app.command()
def kms(
    *,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")] = ("127.0.0.1:8490"),
    region: Annotated[
        str, typer.Option(callback=aws_region, help="The AWS Region that this KMS is in.")
    ] = "us-east-1",
    account: Annotated[str, typer.Option(help="The AWS account that everything belongs to.")] = "111122223333",
    data_directory: Annotated[
        Path | None, typer.Option("--data", metavar="DIRECTORY", help="Keep all state here. Without it, none lasts.")
    ] = None,
    seed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Begin with the key stores and keys of this file (TOML or JSON)."),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="AWS shared credentials file: each profile is a caller. Created if missing. "
            "Default: `credentials` in the data directory.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trust this authority for proxies, instead of the system's."),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve clients over HTTPS with this certificate chain (MongoDB needs it)."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key of --tls-certificate.")
    ] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HOST:PORT",
            help="Where the host name of an endpoint leads. KMS itself uses DNS and port 443, as for other names.",
        ),
    ] = None,
    vpc_service: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=NAME@HOST:PORT[,ACCOUNT]",
            help="A VPC endpoint service: its name, its private DNS name, where its load balancer is, and its owner "
            "if that is another account.",
        ),
    ] = None,
    requests_per_second: Annotated[int, typer.Option(min=1, help="Request quota of each external key store.")] = 1800,
    connection_delay: Annotated[
        float, typer.Option(min=0, help="Seconds that connecting and disconnecting take (about 300 in AWS).")
    ] = 2.0,
    health_interval: Annotated[float, typer.Option(min=1, help="Seconds between two health checks.")] = 60.0,
) -> None:
    """Run a local AWS KMS that calls XKS proxies as AWS KMS does. For development and tests only.

    One JSON line per request goes to standard output. Clients use it with `AWS_ENDPOINT_URL_KMS`.
    """
    with ExitStack() as stack:
        _run(
            Settings(
                credentials=credentials or _credentials_path(data_directory, stack),
                listen=_address(listen, "--listen"),
                region=region,
                account=_account(account),
                data=data_directory,
                ca=ca,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
                routes=_routes(route or []),
                vpc_services=_vpc_services(vpc_service or []),
                requests_per_second=requests_per_second,
                connection_delay=connection_delay,
                health_interval=health_interval,
            ),
            seed,
        )


def _run(settings: Settings, seed: Path | None) -> None:
    try:
        from holdfast.witness.kms.callers import create_credentials, load_callers  # noqa: PLC0415 (the extra may not be installed)
        from holdfast.witness.kms.seed import SeedError, plant  # noqa: PLC0415 (the extra may not be installed)
        from holdfast.witness.kms.server import application, listening_socket, server  # noqa: PLC0415 (the extra may not be installed)
        from holdfast.witness.kms.state import State  # noqa: PLC0415 (the extra may not be installed)
    except ImportError as error:
        raise _missing(error) from None
    if settings.ca is not None:
        trusting(settings.ca)
    _require_tls_pair(settings)
    settings.credentials.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not settings.credentials.exists():
        create_credentials(settings.credentials)
    elif settings.credentials.stat().st_mode & 0o077:
        warning(f"others can read the secret keys in {settings.credentials}: chmod 600 it")
    try:
        callers = load_callers(settings)
    except (OSError, ValueError, configparser.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Invalid(
            f"cannot use the credentials file {settings.credentials}: {why}",
            hint="it has the form of ~/.aws/credentials: profiles with aws_access_key_id and aws_secret_access_key",
        ) from None
    try:
        listener = listening_socket(settings.listen)
    except OSError as error:
        where = f"{settings.listen.host}:{settings.listen.port}"
        raise Prerequisite(
            f"the local KMS cannot listen on {where}: {os.strerror(error.errno or 0)}",
            hint="choose another address with --listen, or stop the program that has it",
        ) from None
    with closing(listener), closing(State(settings.data)) as state:
        if seed is not None:
            try:
                planted = plant(seed, settings, state, utc_now())
            except SeedError as error:
                raise Invalid(
                    f"cannot use --seed: {error}", hint="`holdfast docs local-kms` shows such a file"
                ) from None
            say(f"{seed}: {planted} records are new, the others were there")
        running = server(application(settings, state, callers, _emit), settings)
        # uvicorn raises the signal again at its end; the default action would not remove the temporary directory.
        signal.signal(signal.SIGTERM, running.handle_exit)
        _introduce(settings, listener.getsockname()[1])
        running.run(sockets=[listener])


def _require_tls_pair(settings: Settings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise Invalid("--tls-certificate and --tls-key need each other", hint="give both files, or none for HTTP")
    try:
        for file in (certificate, key):
            read_file(file, most=MOST_PEM)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise Invalid(
            f"cannot use --tls-certificate {certificate} with --tls-key {key}: {error.strerror or error}",
            hint="give a PEM certificate chain and its PEM private key, without a passphrase",
        ) from None


def _introduce(settings: Settings, port: int) -> None:
    host = settings.listen.host
    url = f"{'https' if settings.tls_certificate else 'http'}://{host}:{port}"
    say("holdfast kms: a local AWS KMS for DEVELOPMENT AND TESTS. It stores key material unencrypted.")
    if not _is_loopback(host):
        over = "" if settings.tls_certificate else ", over plain HTTP"
        warning(f"it listens on {host}: others can reach it{over}")
    say(f"  state        {settings.data or 'in memory: gone when this process ends'}")
    say(f"  use it with  export AWS_ENDPOINT_URL_KMS={url}")
    say(f"               export AWS_REGION={settings.region} AWS_DEFAULT_REGION={settings.region}")
    say(f"               export AWS_SHARED_CREDENTIALS_FILE={settings.credentials.absolute()}")
    say(f"  then         aws kms list-keys      (metrics: {url}/metrics)")


def _emit(line: str) -> None:
    print(line, flush=True)


def _credentials_path(directory: Path | None, stack: ExitStack) -> Path:
    if directory is None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-kms-")))
    return directory / "credentials"


def _address(text: str, option: str) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _LAST_PORT:
        raise Invalid(f"{option} {text} is not HOST:PORT", hint=f"write it like {option} 127.0.0.1:8490")
    return Address(match["host"], int(match["port"]))


def _routes(texts: list[str]) -> dict[str, Address]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise Invalid(
                f"--route {name}{equals} is not NAME=HOST:PORT", hint="write it like --route localhost=127.0.0.1:8443"
            )
    return {name: _address(address, f"--route {name}=") for name, _, address in pairs}


def _vpc_services(texts: list[str]) -> dict[str, VpcEndpointService]:
    services = {}
    for text in texts:
        service, _, rest = text.partition("=")
        name, _, where = rest.partition("@")
        address, _, owner = where.partition(",")
        services[service] = VpcEndpointService(
            name, _address(address, f"--vpc-service {service}={name}@"), _account(owner) if owner else None
        )
    return services


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise Invalid(f"{text} is not an AWS account", hint="give its 12 digits, such as 111122223333")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _missing(error: ImportError) -> Prerequisite:
    return Prerequisite(
        f"the local KMS needs the Python package {(error.name or '').partition('.')[0]}",
        hint=f"Install what it needs: `{sys.executable} -m pip install botocore h11 starlette uvicorn`.",
    )
