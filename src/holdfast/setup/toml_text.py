"""Values as TOML writes them."""

from holdfast.control.errors import Invalid


def toml_string(text: str) -> str:
    """A basic string. Raises Invalid for what would need escapes, which no path or label here should have."""
    if any(character in '"\\' or not character.isprintable() for character in text):
        raise Invalid(
            f"{text!r} has a quote, a backslash or a control character",
            hint="Rename it, or write the configuration by hand.",
        )
    return f'"{text}"'
