"""`holdfast`: the table of commands, and how each of them ends."""

import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from holdfast._version import __version__
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.failure import report

_MODULES = {
    "init": ("holdfast.cli.init", "Create a complete setup with SoftHSM in a directory."),
    "serve": ("holdfast.cli.serve", "Run the proxy."),
    "doctor": ("holdfast.cli.doctor", "Check HSM, keys, certificate and files."),
    "config": ("holdfast.cli.config", "The configuration file: check it, explain its keys."),
    "keystore": ("holdfast.cli.keystore", "External key stores: create, list, block, unblock, config."),
    "credential": ("holdfast.cli.credential", "Proxy authentication credentials: issue, list, retire."),
    "key": ("holdfast.cli.key", "External keys: create, register, list, show, disable, enable."),
    "change": ("holdfast.cli.change", "Changes: who made them, when and why."),
    "operator": ("holdfast.cli.operator", "Operators: who may change and approve what."),
    "rules": ("holdfast.cli.rules", "Rules: what needs approval, what a role may do."),
    "emergency": ("holdfast.cli.emergency", "Stop keys on this node without the catalog: stop, lift, show."),
    "node": ("holdfast.cli.node", "Nodes: which run, what they serve."),
    "catalog": ("holdfast.cli.catalog", "The catalog as a whole: show, accept, export, import."),
    "authorization": ("holdfast.cli.authorization", "Cedar policies: test, replay what they decide."),
    "audit": ("holdfast.cli.audit", "The audit log: verify it, prove what it says."),
    "report": ("holdfast.cli.report", "Reports: keys, people, what was done, how to leave."),
    "migrate": ("holdfast.cli.migrate", "Take over the setup of another XKS proxy."),
    "prove": ("holdfast.cli.prove", "Encrypt and decrypt once over the wire, as KMS does."),
    "check": ("holdfast.cli.check", "Check an XKS endpoint, as KMS would see it."),
    "explain": ("holdfast.cli.explain", "Say what an AWS KMS error means and what to do."),
    "docs": ("holdfast.cli.docs", "The documentation of this version."),
    "kms": ("holdfast.cli.kms", "A local AWS KMS that calls an XKS proxy."),
}
"""Each command's module, which holds a Typer named `app`, and its line in `holdfast --help`."""


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when they run: `holdfast --help` imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (typer's signature)
        """Those of the table whose module is installed."""
        return [name for name, (module, _) in _MODULES.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The loaded command, or for the help page a stub that only has its line."""
        if cmd_name not in self.commands and cmd_name in self.list_commands(ctx):
            line = _MODULES[cmd_name][1]
            return TyperCommand(cmd_name, help=line, short_help=line)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Loads the command that is about to run. Fails with the nearest names for one that is not."""
        known = self.list_commands(ctx)
        if args[0] in known:
            self.add_command(load(args[0]), args[0])
        elif not args[0].startswith("-") and not ctx.resilient_parsing:
            near = " or ".join(f"`holdfast {name}`" for name in get_close_matches(args[0], known))
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`holdfast help COMMAND` explains a command.",
)


def _version(value: bool) -> None:  # noqa: FBT001 (typer's signature)
    if value:
        print(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """AWS KMS external key store proxy and key manager: AES-256 keys that never leave your HSM."""


def load(name: str) -> Any:
    """The command `name` as Typer runs it."""
    command_app = import_module(_MODULES[name][0]).app
    # Plain text for all commands: pipes and the generated reference use it unchanged.
    command_app.rich_markup_mode = None
    command_app._add_completion = False  # noqa: SLF001 (Typer asks for it at construction only)
    command = typer.main.get_command(command_app)
    for child in getattr(command, "commands", {}).values():
        # Without this a group's help cuts the sentence where the line ends.
        child.short_help = " ".join((child.help or "").partition("\n\n")[0].split())
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line, by default that of this process; failures are reported on standard error."""
    _open_standard_streams()
    stdout, stderr = sys.stdout, sys.stderr
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader of the output has gone, as in `holdfast key list | true`.
        return ExitCode.UNREAD
    except SystemExit:
        if sys.stdout is stdout:
            raise
        # Typer has seen it first, put other streams in place of these and ended with 1.
        sys.stdout, sys.stderr = stdout, stderr
        return ExitCode.UNREAD
    finally:
        _discard_what_cannot_be_written()


def _open_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    Otherwise the next file that the process opens, perhaps the catalog, would get that number, and whatever a library
    writes to standard error would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A program reads UTF-8, as JSON must be; a terminal shows what it can, and the rest escaped.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (open as long as the process)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 (as above)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 (as above)


def _run(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    try:
        result = command.main(given, prog_name="holdfast", standalone_mode=False)
        # Here a failure can be reported; at the interpreter's exit it cannot.
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:
            return report(error)
        return report(OSError(error.errno, error.strerror, "standard output"))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the outermost place, which reports it)
        return report(error)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _discard_what_cannot_be_written() -> None:
    """Else the interpreter tries once more at its exit, complains, and replaces the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)
