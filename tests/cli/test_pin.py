"""`holdfast key pin` and `unpin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.test_usage import ARN, OTHER_ARN, catalog, use
from tests.store.samples import KEY

from holdfast.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.administered import Catalog
    from tests.cli.conftest import Result, Run

__all__ = ["catalog"]


def change(run: Run, catalog_only: Path, command: str, *arns: str) -> Result:
    named = [word for arn in arns for word in ("--kms-key", arn)]
    return run("key", command, "main", KEY.value, *named, "--yes", "--config", catalog_only)


def pinned(run: Run, catalog_only: Path) -> list[str] | None:
    found: list[str] | None = run("key", "show", "main", KEY.value, "--json", "--config", catalog_only).json[
        "pinned_to"
    ]
    return found


def test_a_key_is_pinned_and_the_plan_says_who_will_be_refused(
    run: Run, catalog_only: Path, catalog: Catalog
) -> None:
    use(catalog)
    use(catalog, arn=OTHER_ARN)
    done = change(run, catalog_only, "pin", ARN).ok()
    assert f"seen: {ARN}, last used just now: served" in done.err
    assert f"seen: {OTHER_ARN}, last used just now: REFUSED from then on" in done.err
    assert f"To undo it: `holdfast key unpin main {KEY.value}" in done.err
    assert (pinned(run, catalog_only), catalog.snapshot().keystores["/main"].keys[KEY.value].pinned_to) == (
        [ARN],
        (ARN,),
    )
    again = change(run, catalog_only, "pin", ARN).ok()
    assert f"{KEY.value} serves {ARN} only already." in again.err


def test_a_pin_is_narrowed_by_pin_and_widened_by_unpin_alone(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    del catalog
    change(run, catalog_only, "pin", ARN).ok()
    refused = change(run, catalog_only, "pin", OTHER_ARN)
    assert (refused.code, "would serve another KMS key" in refused.err) == (ExitCode.CONFLICT, True)
    wider = change(run, catalog_only, "unpin", OTHER_ARN).ok()
    assert pinned(run, catalog_only) == [ARN, OTHER_ARN]
    assert f"To undo it: `holdfast key pin main {KEY.value} --kms-key {ARN}" in wider.err
    narrower = change(run, catalog_only, "pin", OTHER_ARN).ok()
    assert pinned(run, catalog_only) == [OTHER_ARN]
    assert f"To undo it: `holdfast key unpin main {KEY.value} --kms-key {ARN}" in narrower.err
    change(run, catalog_only, "unpin").ok()
    assert pinned(run, catalog_only) is None


def test_an_alias_is_no_pin(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    del catalog
    refused = change(run, catalog_only, "pin", "arn:aws:kms:eu-central-1:111122223333:alias/billing")
    assert (refused.code, "is not the ARN of a KMS key" in refused.err) == (ExitCode.CONFIGURATION, True)


def test_a_pin_that_is_not_one_costs_its_key_alone(run: Run, catalog_only: Path, catalog: Catalog) -> None:
    change(run, catalog_only, "pin", ARN).ok()
    with catalog.change() as transaction:
        transaction.pin_key("main", KEY, ["everything"])
    keystore = catalog.snapshot().keystores["/main"]
    assert (list(keystore.faulty), len(keystore.keys)) == ([KEY.value], 1)
