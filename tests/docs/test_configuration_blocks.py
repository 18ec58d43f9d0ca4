"""Every configuration that the documentation shows is one that Holdfast accepts."""

import pytest
from tests.docs.pages import ROOT, Block, blocks, pages

from holdfast.config.load import parse

_SERVER = '[server]\nlisten = "0.0.0.0:443"\n'
_HSM = '[hsm.base]\nprofile = "softhsm2"\nlibrary = "libsofthsm2.so"\ntoken = { label = "t" }\nhealth_key = "h"\n'
_BLOCKS = [block for page in pages() for block in blocks(page) if block.language == "toml"]


@pytest.mark.parametrize("block", [block for block in _BLOCKS if "foreign" not in block.info], ids=str)
def test_toml_blocks_load(block: Block) -> None:
    """A block is a whole configuration, or marked `fragment` and completed here with the tables that it lacks."""
    text = block.text
    if "fragment" in block.info:
        text += "" if "[server]" in text else _SERVER
        text += "" if "[hsm." in text else _HSM
    parse(text, ROOT / "holdfast.toml")


def test_blocks_are_found() -> None:
    """An empty list would test nothing."""
    assert len(_BLOCKS) > 3
