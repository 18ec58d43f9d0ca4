"""Every body is an Encrypt request that reads the same when written again, or a ValidationException."""

from bodies import check_request

from holdfast.xks.messages import EncryptRequest


def invariant(data: bytes) -> None:
    """As the first line says."""
    check_request(EncryptRequest, data)


if __name__ == "__main__":
    from harness import main

    main(invariant)
