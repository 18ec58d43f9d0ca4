"""GetHealthStatus: who is there, and whether what it says is true."""

from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import Body, Session, accepted, encrypt_body, fresh_plaintext, health_metadata
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import HealthStatus, Operation

_SECTION = "GetHealthStatus"
_MAX_FLEET = 10
_DOWN = (ErrorName.DEPENDENCY_TIMEOUT.status, ErrorName.INTERNAL.status)


@check(
    "HEALTH-01",
    "A signed health request is answered 200",
    level=Level.MUST,
    source=Source("API operations", "The following API operations MUST be supported"),
    needs=("TLS-04",),
)
def answers(session: Session) -> str:
    """Sends GetHealthStatus as KMS does every few minutes."""
    response = session.call(Operation.GET_HEALTH_STATUS, health_metadata())
    return f"{accepted(response, 'GetHealthStatus').describe()}, in {response.seconds * 1000:.1f} ms"


@check(
    "HEALTH-02",
    "All fields are there, with their types",
    level=Level.MUST,
    source=Source(_SECTION, "The following attributes MUST be present in response payload"),
    needs=("HEALTH-01",),
)
def fields(session: Session) -> str:
    """Reads the health response."""
    body = _health(session)
    texts = {name: body.get(name) for name in ("xksProxyVendor", "xksProxyModel", "ekmVendor")}
    missing = [name for name, value in texts.items() if not isinstance(value, str)]
    size = body.get("xksProxyFleetSize")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        missing.append(f"xksProxyFleetSize (an integer greater than zero, not {size!r})")
    for index, entry in enumerate(_fleet(body)):
        missing += [
            f"ekmFleetDetails[{index}].{name}"
            for name in ("id", "model", "healthStatus")
            if not isinstance(entry.get(name), str)
        ]
    if missing:
        raise Refuted(f"missing, or of another type: {', '.join(missing)}")
    return (
        f"vendor {texts['xksProxyVendor']}, model {texts['xksProxyModel']}, fleet size {size}, "
        f"key manager of {texts['ekmVendor']}"
    )


@check(
    "HEALTH-03",
    "One to ten external key managers are listed",
    level=Level.MUST,
    source=Source(_SECTION, "The response MUST have at least one and no more than ten entries in ekmFleetDetails."),
    needs=("HEALTH-02",),
)
def fleet_size(session: Session) -> str:
    """Counts ekmFleetDetails."""
    count = len(_fleet(_health(session)))
    if not 1 <= count <= _MAX_FLEET:
        raise Refuted(f"{count} entries")
    return f"{count}: a single one is a risk to availability, as AWS says" if count == 1 else str(count)


@check(
    "HEALTH-04",
    "At least one external key manager can serve",
    level=Level.MUST,
    source=Source(_SECTION, "The possible statuses are `ACTIVE`, `DEGRADED` and `UNAVAILABLE`."),
    needs=("HEALTH-03",),
)
def statuses(session: Session) -> str:
    """Reads healthStatus. KMS does not connect a key store whose every external key manager is UNAVAILABLE."""
    entries = _fleet(_health(session))
    unknown = [entry["healthStatus"] for entry in entries if entry["healthStatus"] not in tuple(HealthStatus)]
    if unknown:
        raise Refuted(f"unknown status {unknown[0]!r}")
    listed = ", ".join(f"{entry['id']} ({entry['model']}) {entry['healthStatus']}" for entry in entries)
    if all(entry["healthStatus"] == HealthStatus.UNAVAILABLE for entry in entries):
        raise Refuted(f"{listed}: KMS will not connect")
    return listed


@check(
    "HEALTH-05",
    "Health and the key operations agree",
    level=Level.KMS,
    source=Source(
        _SECTION,
        "a successful check provides strong assurance that an encrypt, decrypt or getKeyMetadata request issued "
        "immediately after will succeed",
    ),
    needs=("HEALTH-04",),
)
def agrees(session: Session) -> str:
    """Asks for health, then encrypts at once. How deep the health check goes shows only while the HSM is down."""
    said = ", ".join(entry["healthStatus"] for entry in _fleet(_health(session)))
    response = session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext()))
    if response.status in _DOWN:
        raise Refuted(f"health said {said}, and Encrypt was answered {response.describe()}: is health hard-coded?")
    if response.status == ErrorName.THROTTLING.status:
        raise NotJudged(f"Encrypt was answered {response.describe()}")
    return f"health said {said}, and Encrypt was answered {response.status}"


@check(
    "HEALTH-06",
    "Health is not subject to secondary authorization",
    level=Level.MUST,
    source=Source(_SECTION, "This API MUST be excluded from [secondary authorization](#authorization)"),
    needs=("HEALTH-01",),
)
def no_authorization(session: Session) -> str:
    """Asks as each of the KMS operations that ask for health, with nothing that a policy could allow by."""
    for operation in ("CreateCustomKeyStore", "ConnectCustomKeyStore", "UpdateCustomKeyStore", "KmsHealthCheck"):
        response = session.call(Operation.GET_HEALTH_STATUS, health_metadata(kmsOperation=operation))
        if response.error_name == ErrorName.ACCESS_DENIED or response.status == ErrorName.ACCESS_DENIED.status:
            raise Refuted(f"{operation}: {response.describe()}")
        accepted(response, f"GetHealthStatus for {operation}")
    return "answered for each of the four kmsOperation values of the spec"


@check(
    "HEALTH-07",
    "The external key managers have ids of their own",
    level=Level.MUST,
    source=Source(_SECTION, "Unique identifier for the external key manager in the external key manager cluster."),
    needs=("HEALTH-02",),
)
def unique_ids(session: Session) -> str:
    """Compares the ids in ekmFleetDetails."""
    ids = [entry["id"] for entry in _fleet(_health(session))]
    repeated = sorted({each for each in ids if ids.count(each) > 1})
    if repeated or not all(ids):
        raise Refuted(f"repeated: {', '.join(repeated)}" if repeated else "an id is empty")
    return ", ".join(ids)


@check(
    "HEALTH-08",
    "xksProxyModel has product name and version",
    level=Level.SHOULD,
    source=Source(_SECTION, "Model of the XKS Proxy. This SHOULD include the product name and version."),
    needs=("HEALTH-02",),
)
def proxy_model(session: Session) -> str:
    """Looks for letters and a digit: AWS's support reads it when a key store fails."""
    return _named_with_version(_health(session)["xksProxyModel"])


@check(
    "HEALTH-09",
    "Each external key manager's model has product name and version",
    level=Level.SHOULD,
    source=Source(
        _SECTION,
        "Model of the external key manager. This SHOULD include the product name, version of the hardware",
    ),
    needs=("HEALTH-02",),
)
def manager_models(session: Session) -> str:
    """Looks for letters and a digit: AWS judges requests for a higher quota by it."""
    return ", ".join(_named_with_version(entry["model"]) for entry in _fleet(_health(session)))


@check(
    "HEALTH-10",
    "Every external key manager is ACTIVE",
    level=Level.ADVICE,
    source=Source(_SECTION, "The possible statuses are `ACTIVE`, `DEGRADED` and `UNAVAILABLE`."),
    needs=("HEALTH-04",),
)
def all_active(session: Session) -> str:
    """Reads healthStatus of each external key manager."""
    entries = _fleet(_health(session))
    others = [f"{entry['id']} is {entry['healthStatus']}" for entry in entries if entry["healthStatus"] != "ACTIVE"]
    if others:
        raise Refuted(", ".join(others))
    return f"{len(entries)} of {len(entries)}"


def _health(session: Session) -> Body:
    response = session.call(Operation.GET_HEALTH_STATUS, health_metadata())
    body = accepted(response, "GetHealthStatus").json_object
    if body is None:
        raise Refuted(f"the health response is {response.describe()}")
    return body


def _fleet(body: Body) -> list[Body]:
    entries = body.get("ekmFleetDetails")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Refuted("ekmFleetDetails is not an array of objects")
    return entries


def _named_with_version(model: str) -> str:
    if not any(c.isalpha() for c in model) or not any(c.isdigit() for c in model):
        raise Refuted(f"{model!r}")
    return model


CHECKS: tuple[Check, ...] = (
    answers,
    fields,
    fleet_size,
    statuses,
    agrees,
    no_authorization,
    unique_ids,
    proxy_model,
    manager_models,
    all_active,
)
