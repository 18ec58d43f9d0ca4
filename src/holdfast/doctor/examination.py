"""The whole examination: every part looked at once, none able to stop the others."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime

from holdfast.config.model import Configuration
from holdfast.control.catalogs import open_catalog
from holdfast.control.drills import WITHOUT_KEY
from holdfast.control.schedule import due_keys
from holdfast.doctor.audit import examine_audit
from holdfast.doctor.certificate import examine_certificate
from holdfast.doctor.clock import examine_clock
from holdfast.doctor.files import examine_files
from holdfast.doctor.hsm import examine_hsm
from holdfast.doctor.lifetimes import examine_lifetimes
from holdfast.doctor.policies import examine_policies, examine_policy_names
from holdfast.doctor.recovery import examine_recovery
from holdfast.doctor.references import examine_hsm_files
from holdfast.doctor.running import RunningProxy
from holdfast.finding import Finding, Severity, error, note, ok, warning
from holdfast.keys.states import GenerationState
from holdfast.store.drills import drilled
from holdfast.store.errors import CatalogError
from holdfast.store.local_stop import StopFile
from holdfast.store.memory import MemoryFile
from holdfast.store.reads import KeyRow
from holdfast.store.store import Catalog
from holdfast.store.usage import several_kms_keys

FULL_CREDENTIALS = 2
"""Spec, Appendix A: at least two simultaneous credentials, so that one can be replaced without an outage."""


def examine(configuration: Configuration, *, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Every finding, part by part, as soon as it is known."""
    try:
        catalog = open_catalog(configuration, now=now)
    except CatalogError as failure:
        yield from _whole("HSMs", _hsms(configuration, []))
        yield _unusable(failure)
    else:
        with closing(catalog):
            yield from _whole("HSMs and keys", _keys(configuration, catalog, now))
            yield from _whole("catalog", _catalog(catalog, MemoryFile(configuration.catalog.state_file), now()))
            yield from _whole("life of keys", _life_of_keys(configuration, catalog, now()))
            yield from _whole("policies", _policy_names(configuration, catalog))
    yield from _whole("policies", examine_policies(configuration.authorization))
    yield from _whole("certificate", examine_certificate(configuration.tls, now=now()))
    yield from _whole("audit log", examine_audit(configuration, now=now()))
    yield from _whole("clock", examine_clock())
    yield from _whole("files", examine_files(configuration))
    yield from _whole("emergency stop", _local_stop(StopFile(configuration.catalog.stop_file)))


def _local_stop(file: StopFile) -> Iterator[Finding]:
    subject = "emergency stop"
    try:
        found = file.read()
    except FileNotFoundError:
        yield note(
            "emergency-file-missing",
            subject,
            f"{file.path} is not there: `holdfast emergency stop` needs it on a full disk",
            remedy="`holdfast serve` makes it when it starts.",
        )
        return
    if found is None:
        yield ok("emergency-stop", subject, f"nothing is stopped on this node, and {file.path} is ready")
    else:
        yield error(
            "emergency-stopped",
            subject,
            found.words(),
            why="Encrypt and Decrypt are refused here, whatever the catalog says.",
            remedy="`holdfast emergency lift` when the cause is gone.",
        )


def _whole(part: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of one part; a part that fails becomes a finding, and the others are still looked at."""
    try:
        yield from findings
    except CatalogError as failure:
        yield _unusable(failure)
    except Exception as failure:  # noqa: BLE001 (whatever it is, the other parts must be looked at)
        reason = f"{failure.filename}: {failure.strerror}" if isinstance(failure, OSError) else repr(failure)
        yield error(
            "part-stopped",
            part,
            f"this part of the examination stopped: {reason}",
            why="What it had not looked at by then is not known.",
            remedy="Run doctor as the user that the proxy runs as, or as root. If it stops again, please report it.",
        )


def _unusable(failure: CatalogError) -> Finding:
    return error(
        "catalog-unusable",
        "catalog",
        failure.message,
        why="Without the catalog the proxy knows no keystore, credential or key.",
        remedy="`holdfast init` makes or upgrades its tables; for PostgreSQL check the URL and the network.",
    )


def _life_of_keys(configuration: Configuration, catalog: Catalog, now: datetime) -> Iterator[Finding]:
    with catalog.reading() as state:
        keys, found, due = state.keys(None), drilled(state), due_keys(state, configuration, now)
    yield from examine_recovery(configuration, keys, found, now)
    yield from examine_lifetimes(keys, due, now)


def _policy_names(configuration: Configuration, catalog: Catalog) -> Iterator[Finding]:
    yield from examine_policy_names(configuration.authorization, catalog.snapshot())


def _keys(configuration: Configuration, catalog: Catalog, now: Callable[[], datetime]) -> Iterator[Finding]:
    keys = [row for row in catalog.keys(None) if row.state not in WITHOUT_KEY]
    found = []
    for finding in _hsms(configuration, keys):
        found.append(finding)
        yield finding
    yield from _homeless(configuration, keys)
    missing = {finding.subject for finding in found if finding.code in ("key-not-found", "key-label-twice")}
    here = [row for row in _active(keys) if f"key {row.keystore}/{row.external_key_id}" not in missing]
    examined = {name for name in configuration.hsms if not _failed(name, found)}
    running = RunningProxy(configuration, catalog, now)
    yield from _whole("running proxy", running.examine([row for row in here if row.hsm in examined]))


def _hsms(configuration: Configuration, keys: list[KeyRow]) -> Iterator[Finding]:
    for name, table in configuration.hsms.items():
        wrong = [f for f in examine_hsm_files(f"hsm.{name}", table) if f.severity is Severity.ERROR]
        yield from wrong
        if not wrong:
            own = [row for row in keys if row.hsm == name]
            yield from _whole(f"hsm.{name}", examine_hsm(table, own))


def _failed(name: str, found: list[Finding]) -> bool:
    """Whether the HSM could not be looked at, so that nothing is known of its keys."""
    codes = {finding.code for finding in found if finding.subject == f"hsm.{name}"}
    return not codes & {"login"}


def _catalog(catalog: Catalog, state: MemoryFile, now: datetime) -> Iterator[Finding]:
    snapshot = catalog.snapshot()
    remembered = state.read()
    doubt = None if remembered is None else remembered.doubt or remembered.older(snapshot.version)
    if doubt is not None:
        yield error(
            "catalog-doubted",
            "catalog",
            f"this machine does not believe the catalog: {doubt}",
            why="What was blocked, disabled, stopped or retired stays so here, whatever the catalog says.",
            remedy="If a backup was restored: `holdfast catalog accept` shows what starts again, and accepts it."
            " Else find out who changed the database.",
        )
    counts = f"keystores: {len(snapshot.keystores)}, version: {snapshot.version}"
    yield ok("catalog", "catalog", f"opens, and its tables are this version's ({counts})")
    for sentence in snapshot.unreadable:
        yield error(
            "secret-unreadable",
            "catalog",
            sentence,
            why="KMS's requests with this credential get AuthenticationFailedException.",
            remedy="Restore the secret, or issue another credential and give that to KMS, then retire this one.",
        )
    for sentence in snapshot.bad_rows:
        yield error(
            "catalog-row",
            "catalog",
            sentence,
            why="Holdfast did not write this row as it is: someone changed the database, or restored a part of it.",
            remedy="Find out who changed it. Then restore the catalog from its backup, or correct the row.",
        )
    for sentence in snapshot.unexplained:
        yield error(
            "catalog-unexplained",
            "catalog",
            sentence,
            why="Somebody wrote to the database itself. What that opens is refused, what it closes stays closed.",
            remedy="Find out who did it, then accept the entry or put back what is recorded.",
        )
    if not snapshot.keystores:
        yield note(
            "catalog-empty", "catalog", "there is no keystore", remedy="`holdfast keystore create NAME` makes one."
        )
    yield from _shared(catalog)
    for keystore in snapshot.keystores.values():
        subject = f"keystore {keystore.name}"
        if keystore.at(now).blocked:
            yield warning(
                "keystore-blocked",
                subject,
                "the keystore is blocked",
                why="Every Encrypt and Decrypt is refused.",
                remedy=f"`holdfast keystore unblock {keystore.name}` to let it serve again.",
            )
        if not keystore.credentials:
            yield error(
                "keystore-without-credential",
                subject,
                "the keystore has no credential that works",
                why="Every request of KMS is refused.",
                remedy=f"`holdfast credential issue {keystore.name}`, then `holdfast keystore config`.",
            )
        elif len(keystore.credentials) < FULL_CREDENTIALS:
            yield note(
                "keystore-one-credential",
                subject,
                "the keystore has one credential",
                remedy="Issue a second one before you replace it, so that KMS changes over without an outage.",
            )


def _shared(catalog: Catalog) -> Iterator[Finding]:
    with catalog.reading() as state:
        found = several_kms_keys(state)
    for (keystore, key), arns in found.items():
        yield warning(
            "key-several-kms-keys",
            f"key {keystore}/{key}",
            f"several KMS keys have used it: {', '.join(arns)}",
            why="One external key is meant for one KMS key: a second one may be of an account that you do not know.",
            remedy=f"`holdfast key usage {keystore} {key}` shows who asked. `holdfast key pin` lets it serve"
            " those only that you name.",
        )


def _homeless(configuration: Configuration, keys: list[KeyRow]) -> Iterator[Finding]:
    for row in keys:
        if row.hsm not in configuration.serving:
            standby = row.hsm in configuration.hsms
            yield error(
                "key-without-hsm",
                f"key {row.keystore}/{row.external_key_id}",
                f"the key is in the HSM {row.hsm!r}, "
                + ("which is a standby" if standby else f"for which the configuration has no [hsm.{row.hsm}]"),
                why="Every call for this key fails.",
                remedy="Remove `standby` there." if standby else "Add that table again, or correct its name.",
            )


def _active(keys: list[KeyRow]) -> list[KeyRow]:
    """One row per external key: that of the generation that encrypts."""
    return [row for row in keys if row.state is GenerationState.ACTIVE]
