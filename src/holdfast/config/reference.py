"""Every key of the configuration file: the one source of its parsing, its default and its documentation."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from holdfast.config import kinds
from holdfast.hsm.pkcs11.profile import PROFILES
from holdfast.hsm.settings import IvMode, LoginMode


class Absent(Enum):
    """What a key without a default value is when it is left out."""

    REQUIRED = "required"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its kind, what it is when left out (as it would be written), and its meaning in one or two sentences."""

    name: str
    kind: kinds.Kind
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file. `[hsm.NAME]` stands for as many as there are HSMs."""

    name: str
    meaning: str
    keys: tuple[Key, ...]


SERVER = Table(
    "server",
    "The listeners and their limits. Required.",
    (
        Key("listen", kinds.Listener(), Absent.REQUIRED, "Where KMS's calls arrive: HTTPS with [tls], else HTTP."),
        Key(
            "workers",
            kinds.Integer(1, 64),
            2,
            "Processes that share the port. With two, one restarts while the other serves.",
        ),
        Key(
            "deadline_ms",
            kinds.Integer(50, 240, scale=1000),
            200,
            "Time for one request from its arrival. KMS gives up after 250 ms, the network included.",
        ),
        Key(
            "max_body_bytes",
            kinds.Integer(32_768, 1_048_576),
            65_536,
            "A longer request body is refused. The specification's sizes fit into 32768.",
        ),
        Key("max_header_bytes", kinds.Integer(4_096, 65_536), 16_384, "Longer request headers are refused."),
        Key(
            "max_connections",
            kinds.Integer(1, 100_000),
            12_000,
            "Open connections per worker, or as many as the limit of open files allows. One more ends an old one, at"
            " first of those that have not signed a request.",
        ),
        Key(
            "require_policies",
            kinds.Flag(),
            False,
            "Whether a configuration without [authorization] is refused, so that policies cannot vanish unnoticed.",
        ),
        Key(
            "max_unauthenticated_per_source",
            kinds.Integer(1, 100_000),
            Absent.NONE,
            "Connections per worker from one address that have not signed a request. Left out: a quarter of all.",
        ),
        Key(
            "allow_networks",
            kinds.Networks(),
            [],
            "Networks that may connect to `listen`, by the addresses that the proxy sees. Left out: any.",
        ),
        Key("read_timeout_s", kinds.Seconds(0.5, 60), 5, "A request that has begun must be complete by then."),
        Key(
            "idle_timeout_s",
            kinds.Seconds(1, 3_600),
            360,
            "A connection without a request is closed after this; longer than a Network Load Balancer's 350.",
        ),
        Key("drain_timeout_s", kinds.Seconds(0.5, 300), 10, "On SIGTERM, time for running requests to end."),
        Key(
            "health_listen",
            kinds.Listener(),
            Absent.NONE,
            "GET /ping and /ready, with the reasons, for load balancers. Plain HTTP without [health_tls].",
        ),
        Key(
            "metrics_listen",
            kinds.Listener(),
            Absent.NONE,
            "GET /metrics. Plain HTTP without [metrics_tls].",
        ),
    ),
)

TLS = Table(
    "tls",
    "HTTPS. Without this table the proxy uses plain HTTP, and something in front of it must terminate TLS.",
    (
        Key(
            "certificate", kinds.FilePath(), Absent.REQUIRED, "PEM: the server's certificate, then the intermediates."
        ),
        Key("private_key", kinds.FilePath(), Absent.REQUIRED, "PEM: the certificate's private key, not encrypted."),
        Key("client_ca", kinds.FilePath(), Absent.NONE, "PEM: mutual TLS, the CAs of callers. Needs client_subject."),
        Key(
            "client_subject",
            kinds.Text(),
            Absent.NONE,
            "Mutual TLS: the common name a caller's certificate must have. Needs client_ca.",
        ),
    ),
)

HEALTH_TLS = Table("health_tls", "HTTPS for `health_listen`. Without this table it uses plain HTTP.", TLS.keys)

METRICS_TLS = Table(
    "metrics_tls",
    "HTTPS for `metrics_listen`. Without this table it uses plain HTTP. With client_ca only a scraper with a"
    " certificate is answered.",
    TLS.keys,
)

CATALOG = Table(
    "catalog",
    "Where keystores, credentials and keys are stored. May be left out.",
    (
        Key(
            "url",
            kinds.CatalogUrl(),
            "sqlite:///catalog.db",
            "sqlite:///PATH, or for a fleet postgresql://USER@HOST/DATABASE, the password in a passfile.",
        ),
        Key(
            "secrets_directory",
            kinds.FilePath(),
            "secrets",
            "One file per credential with its secret access key, mode 0600.",
        ),
        Key(
            "reference_prefix",
            kinds.Text(),
            "HOLDFAST_SECRET_",
            "How the name in `credential issue --reference env:NAME` or `credential:NAME` begins; a - is a _.",
        ),
        Key(
            "state",
            kinds.FilePath(),
            Absent.NONE,
            "What this machine has seen of the catalog, so that an older one is noticed. By default beside it, with"
            " PostgreSQL beside secrets_directory.",
        ),
        Key(
            "stale_limit_s",
            kinds.Seconds(1, 86_400),
            300,
            "While the database is down the proxy serves what it last read for this long, then blocks all keystores.",
        ),
    ),
)

ENCRYPTION_LIMIT = Table(
    "encryption_limit",
    "Encryptions per key generation over all proxies. NIST SP 800-38D, 8.3 allows 2^32. May be left out.",
    (
        Key("warn", kinds.Integer(1, 2**32), 2**30, "One warning in the log. The default is 2^30."),
        Key("alarm", kinds.Integer(1, 2**32), 2**31, "An alarm in the log. The default is 2^31."),
        Key(
            "stop",
            kinds.Stop(),
            2**32,
            'At this count a key only decrypts: Encrypt gets InvalidStateException. 2^32; or "never".',
        ),
    ),
)

AUTHORIZATION = Table(
    "authorization",
    "Who may use which key, decided at the proxy as well. Without this table KMS's key policies alone decide.",
    (
        Key(
            "policies",
            kinds.FilePath(),
            Absent.REQUIRED,
            "A file of Cedar policies. What none of them permits is denied. A changed file is loaded automatically.",
        ),
    ),
)

LOG = Table(
    "log",
    "The event log: one JSON object per request and line. May be left out.",
    (
        Key("events", kinds.FilePath(), Absent.NONE, "A file to append to; left out: standard output."),
        Key(
            "required",
            kinds.Flag(),
            False,
            "Whether an answer waits for its line, and keys are refused while no line can be written.",
        ),
    ),
)

AUDIT = Table(
    "audit",
    "This node's audit log, which `holdfast audit verify` proves. Without this table there is none.",
    (
        Key("directory", kinds.FilePath(), Absent.REQUIRED, "The log; every node has its own. It grows for ever."),
        Key(
            "name",
            kinds.LogName(),
            Absent.REQUIRED,
            "The log's own name, in every signature, such as bank.example/holdfast/madrid-1. Never to be changed.",
        ),
        Key("hsm", kinds.Text(), Absent.NONE, "The HSM with the key that signs. Left out: the only one."),
        Key(
            "key",
            kinds.Text(),
            "holdfast-audit",
            "CKA_LABEL of the key that signs, made by `holdfast audit key create`. It is used for nothing else.",
        ),
        Key(
            "key_file",
            kinds.FilePath(),
            Absent.NONE,
            "A PEM file with the key instead, for tests: whoever can read the file can forge the log.",
        ),
        Key(
            "fail_closed",
            kinds.Flag(),
            False,
            "Whether an answer waits for its record, and keys are refused while none can be written.",
        ),
        Key("interval_s", kinds.Seconds(0.2, 60), 10, "A segment, and a checkpoint, is made at most this often."),
        Key(
            "keep_days",
            kinds.Integer(1, 36_500),
            Absent.NONE,
            "Segments of events are deleted after so many days; proofs of them stay valid. Left out: never.",
        ),
        Key(
            "control_directory",
            kinds.FilePath(),
            Absent.NONE,
            "The control log, with a leaf for each change: on one host of the installation. Needs control_name.",
        ),
        Key("control_name", kinds.LogName(), Absent.NONE, "The control log's own name. Needs control_directory."),
    ),
)

HSM = Table(
    "hsm.NAME",
    "One HSM, or one load-shared set behind one token. Keys are registered under NAME. At least one.",
    (
        Key(
            "profile",
            kinds.Choice(tuple(PROFILES), str),
            Absent.REQUIRED,
            "Vendor-specific behaviour: IV, error codes, login, limits.",
        ),
        Key("library", kinds.Library(), Absent.REQUIRED, "The vendor's PKCS#11 module."),
        Key("token", kinds.Token(), Absent.REQUIRED, "Which token of the module, by exactly one of the three."),
        Key(
            "health_key",
            kinds.Text(),
            Absent.REQUIRED,
            "CKA_LABEL of an AES-256 key for start-up and health probes; never a key of KMS.",
        ),
        Key(
            "login",
            kinds.Choice(tuple(LoginMode), LoginMode),
            Absent.NONE,
            'Whether to log in: "auto" if the token asks for it. Left out: as the profile says.',
        ),
        Key(
            "pin",
            kinds.Reference(),
            Absent.NONE,
            "Where the user PIN or passphrase is; one newline at its end is dropped.",
        ),
        Key(
            "sessions",
            kinds.Integer(1, 1_024),
            8,
            "Sessions per worker, each with a thread: calls to the HSM at one time.",
        ),
        Key(
            "queue",
            kinds.Integer(1, 65_536),
            256,
            "Requests per worker that may wait for a session; one more is throttled.",
        ),
        Key("environment", kinds.Environment(), {}, "Environment variables set before the module is loaded."),
        Key(
            "initialize_string",
            kinds.Text(),
            Absent.NONE,
            "Passed to C_Initialize as pReserved. NSS softokn needs it; left out: none, as PKCS#11 says.",
        ),
        Key(
            "probe_interval_s",
            kinds.Seconds(1, 60),
            10,
            "Between two health probes. KMS must not see a result older than a minute.",
        ),
        Key(
            "iv_mode",
            kinds.Choice(tuple(IvMode), IvMode),
            Absent.NONE,
            "Who makes the IV and where it comes back. Left out: as the profile says. Probed at every start.",
        ),
        Key("iv_length", kinds.Choice((12, 16), int), Absent.NONE, "Bytes of the IV. Left out: as the profile says."),
        Key(
            "gcm_parameter_bytes",
            kinds.Choice((40, 48), int),
            Absent.NONE,
            "Size of CK_GCM_PARAMS: 48 with ulIvBits, 40 without. Left out: as the profile says.",
        ),
        Key("iv_bits", kinds.Flag(), Absent.NONE, "Whether ulIvBits is filled in. Left out: as the profile says."),
        Key(
            "mechanism",
            kinds.Integer(0, 2**64 - 1),
            Absent.NONE,
            "CKM_ number of AES-GCM, as in 0x1087. Left out: as the profile says.",
        ),
        Key(
            "allow_extractable",
            kinds.Flag(),
            False,
            "Serve keys that are extractable, not sensitive or imported, so that copies may exist outside the HSM."
            " Without it they are refused.",
        ),
        Key(
            "read_write_sessions",
            kinds.Flag(),
            Absent.NONE,
            "Whether sessions are opened read-write. Left out: as the profile says.",
        ),
    ),
)

TABLES = (SERVER, TLS, HEALTH_TLS, METRICS_TLS, CATALOG, ENCRYPTION_LIMIT, AUTHORIZATION, LOG, AUDIT, HSM)
"""In the order of the documentation."""
