"""Every body is a Decrypt request that reads the same when written again, or a ValidationException."""

from bodies import check_request

from holdfast.xks.messages import DecryptRequest


def invariant(data: bytes) -> None:
    """As the first line says."""
    check_request(DecryptRequest, data)


if __name__ == "__main__":
    from harness import main

    main(invariant)
