"""Only the one Authorization header that a holder of the secret would send is accepted; all else is refused as such.

The input is the header's value. A second line, if there is one, replaces x-amz-date, a third one is a header more.
"""

from datetime import UTC, datetime

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.sigv4 import Authorization, Credential, sign, verify
from holdfast.xks.types import AccessKeyId, SecretAccessKey

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATH = b"/kms/xks/v1/health"
ID = AccessKeyId("HOLDFASTFUZZACCESSKEY2")
SECRET = SecretAccessKey.parse("HoldfastFuzzSecretAccessKeyThatIsPublic/0123456789+=")
HOST = "localhost"


def invariant(data: bytes) -> None:
    """As the first line says."""
    value, *more = data.split(b"\n", 2)
    date = more[0] if more else b"20261124T120000Z"
    extra = [tuple(line.partition(b":")[::2]) for line in more[1:]]
    headers = [(b"host", HOST.encode()), (b"x-amz-date", date), (b"authorization", value), *extra]
    try:
        who = verify("POST", PATH, headers=headers, body=b"", credentials={str(ID): SECRET}, region=None, now=NOW)
    except XksError as error:
        assert error.name is ErrorName.AUTHENTICATION_FAILED
        assert "Fuzz" not in error.message
        return
    assert who == ID
    accepted = Authorization.parse(value)
    assert accepted.date.encode() == date[:8]
    assert {b"host", b"x-amz-date"} <= set(accepted.signed_headers)
    if accepted.signed_headers == (b"host", b"x-amz-date"):
        sent = datetime.strptime(date.decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        again = sign("POST", PATH, host=HOST, body=b"", credential=Credential(ID, SECRET, accepted.region), now=sent)
        assert Authorization.parse(again["Authorization"].encode()) == accepted


if __name__ == "__main__":
    from harness import main

    main(invariant)
