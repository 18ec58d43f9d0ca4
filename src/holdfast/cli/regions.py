"""The AWS Region that a command line names."""

import typer

from holdfast.xks.partition import REGION


def aws_region(text: str) -> str:
    """The Region, as an option's callback. Raises BadParameter for what does not have the form of one."""
    if not REGION.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not the name of an AWS Region: names look like eu-central-1")
    return text
