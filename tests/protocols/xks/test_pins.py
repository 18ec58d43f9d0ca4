"""A key that is pinned serves the KMS keys that it is pinned to, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.protocols.xks.test_authorization import FIELDS, denied

from holdfast.xks.types import KeyStatus, Operation

if TYPE_CHECKING:
    from tests.protocols.xks.proxy import Proxy
    from tests.protocols.xks.software_hsm import SoftwareHsm

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize("operation", [Operation.ENCRYPT, Operation.DECRYPT])
def test_another_kms_key_is_refused_before_the_hsm_is_asked(
    proxy: Proxy, hsm: SoftwareHsm, operation: Operation
) -> None:
    proxy.change_key("key-1", pinned_to=(ARN,))
    reply = proxy.call(operation, FIELDS[operation])
    assert denied(reply)
    assert (hsm.calls, proxy.taken) == ([], [])
    assert reply.json["errorMessage"] == "the external key is pinned to another KMS key"


def test_the_pinned_kms_key_is_served(proxy: Proxy) -> None:
    proxy.change_key("key-1", pinned_to=("arn:aws:kms:eu-central-1:111122223333:key/other", ARN))
    proxy.metadata["kmsKeyArn"] = ARN
    assert proxy.call(Operation.ENCRYPT, FIELDS[Operation.ENCRYPT]).status == 200


def test_a_key_that_is_pinned_to_nothing_serves_every_kms_key(proxy: Proxy) -> None:
    for arn in (ARN, "whatever KMS says"):
        proxy.metadata["kmsKeyArn"] = arn
        assert proxy.call(Operation.ENCRYPT, FIELDS[Operation.ENCRYPT]).status == 200


def test_whoever_may_not_use_a_key_does_not_learn_that_it_is_disabled(proxy: Proxy) -> None:
    proxy.change_key("key-1", pinned_to=(ARN,), status=KeyStatus.DISABLED)
    assert denied(proxy.call(Operation.ENCRYPT, FIELDS[Operation.ENCRYPT]))
