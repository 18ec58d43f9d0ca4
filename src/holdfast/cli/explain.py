"""`holdfast explain`: what an AWS KMS error means, where to look on the proxy, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated

import typer
from msgspec import to_builtins

from holdfast.cli import output
from holdfast.cli.options import JsonOption  # noqa: TC001 (typer reads it at run time)
from holdfast.control.errors import NotFound
from holdfast.witness.explain import Match, exceptions_text, explain

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_MANY = 4
_WIDEST = 100


@app.command()
def explain_command(
    text: Annotated[
        list[str],
        typer.Argument(
            help="The exception, its message (best), an errorName or a ConnectionErrorCode, as an SDK, the AWS CLI, "
            "Terraform or CloudTrail writes it. Quotes are needed only for what your shell would change."
        ),
    ],
    *,
    json: JsonOption = False,
) -> None:
    """Say what an AWS KMS error means and what to do."""
    matches = explain(" ".join(text))
    if not matches:
        raise NotFound(
            "AWS KMS is not known to report this for an external key store",
            hint="Paste the whole message, or the ConnectionErrorCode of `aws kms describe-custom-key-stores`.",
        )
    if json:
        output.json([_as_json(match) for match in matches])
    elif len(matches) >= _MANY:
        _many(matches)
    else:
        output.data("\n\n".join(_text(match) for match in matches))


def _as_json(match: Match) -> dict[str, object]:
    return {
        "name": match.name,
        "explanation": to_builtins(match.explanation),
        "kms": None if match.kms is None else asdict(match.kms),
    }


def _many(matches: list[Match]) -> None:
    output.data(
        f"This can be any of {len(matches)} failures. The message that comes with the exception says which.\n"
    )
    for match in matches:
        message = match.kms.message if match.kms else match.explanation.meaning
        output.data(fill(f"{match.name}: {message}", _width(), initial_indent="- ", subsequent_indent="  "))


def _text(match: Match) -> str:
    words = match.explanation
    parts = [match.name[0].upper() + match.name[1:]]
    rows = {"Meaning": words.meaning, "Look at": words.look, "Do": words.act}
    if match.kms is not None:
        rows = {"KMS says": match.kms.message, "Raised as": exceptions_text(match.kms)} | rows
    parts += [
        fill(text, _width(), initial_indent=f"  {name:<10} ", subsequent_indent=" " * 13)
        for name, text in rows.items()
    ]
    return "\n".join(parts)


def _width() -> int:
    return min(get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
