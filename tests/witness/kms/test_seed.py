"""A local KMS that begins with the key stores and keys of a file."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.witness.kms.clients import LocalKms, settle
from tests.witness.kms.xks_proxy import ACCESS_KEY_ID, HOST, SECRET_ACCESS_KEY

from holdfast.witness.kms.records import Alias, Key, KeyStore, Tag
from holdfast.witness.kms.seed import SeedError, plant
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms.state import State
from holdfast.xks.encoding import encode_base64

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ORDINARY, EXTERNAL = "1234abcd-12ab-34cd-56ef-1234567890ab", "1234abcd-12ab-34cd-56ef-1234567890ac"
MATERIAL = encode_base64(bytes(range(32)))
FILE: dict[str, Any] = {
    "key_store": [
        {
            "id": "cks-1234567890abcdef0",
            "name": "demo",
            "endpoint": f"https://{HOST}",
            "path": "/one/kms/xks/v1",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
        }
    ],
    "key": [
        {"id": ORDINARY, "material": MATERIAL, "aliases": ["alias/app"], "tags": {"a": "b"}, "description": "first"},
        {"id": EXTERNAL, "key_store": "demo", "xks_key_id": "key-0", "enabled": True},
    ],
}


@pytest.fixture
def state() -> Iterator[State]:
    with closing(State(None)) as state:
        yield state


def planted(tmp_path: Path, settings: Settings, document: Any, state: State) -> State:
    """The state after a file with this document."""
    file = tmp_path / "seed.json"
    file.write_text(json.dumps(document))
    plant(file, settings, state, NOW)
    return state


def everything(state: State) -> list[object]:
    return [*state.select(KeyStore), *state.select(Key), *state.select(Alias), *state.select(Tag)]


@pytest.mark.usefixtures("proxy")
def test_seeded_keys_are_there_at_the_first_request(
    tmp_path: Path, settings: Settings, start: Callable[..., LocalKms]
) -> None:
    data = tmp_path / "data"
    state = planted(tmp_path, settings, FILE, State(data))
    state.close()
    kms = start(data=data).client()
    assert settle(kms, "cks-1234567890abcdef0")["ConnectionState"] == "CONNECTED"
    assert kms.describe_key(KeyId="alias/app")["KeyMetadata"]["KeyId"] == ORDINARY
    assert kms.list_resource_tags(KeyId=ORDINARY)["Tags"] == [{"TagKey": "a", "TagValue": "b"}]
    blob = kms.encrypt(KeyId=EXTERNAL, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_the_same_material_decrypts_in_another_state(
    tmp_path: Path, settings: Settings, start: Callable[..., LocalKms]
) -> None:
    def started(name: str) -> Any:
        planted(tmp_path, settings, {"key": [FILE["key"][0]]}, State(tmp_path / name)).close()
        return start(data=tmp_path / name).client()

    blob = started("one").encrypt(KeyId=ORDINARY, Plaintext=b"x")["CiphertextBlob"]
    assert started("two").decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_a_file_can_be_given_at_every_start(tmp_path: Path, settings: Settings, state: State) -> None:
    """What has changed since stays changed."""
    planted(tmp_path, settings, FILE, state)
    key = state.find(Key, id=ORDINARY)
    assert key is not None
    state.put(Key(key.id, key.created, "changed", key.policy, key.material))
    before = everything(state)
    assert plant(tmp_path / "seed.json", settings, state, NOW) == 0
    assert everything(state) == before


def test_toml_and_a_credential_in_a_file_are_read_too(tmp_path: Path, settings: Settings, state: State) -> None:
    (tmp_path / "credential.json").write_text(
        json.dumps({"AccessKeyId": ACCESS_KEY_ID, "RawSecretAccessKey": SECRET_ACCESS_KEY})
    )
    file = tmp_path / "seed.toml"
    file.write_text(
        f"""
[[key_store]]
name = "demo"
endpoint = "https://{HOST}"
path = "/one/kms/xks/v1"
credential_file = "credential.json"
connected = false

[[key]]
id = "{EXTERNAL}"
key_store = "demo"
xks_key_id = "key-0"
"""
    )
    assert plant(file, settings, state, NOW) == 2
    (store,) = state.select(KeyStore)
    assert (store.connection_state, store.secret_access_key) == ("DISCONNECTED", SECRET_ACCESS_KEY)


def _store(**changes: Any) -> dict[str, Any]:
    return {"key_store": [{**FILE["key_store"][0], **changes}]}


def _key(**changes: Any) -> dict[str, Any]:
    return {"key": [{"id": ORDINARY, **changes}]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "Expected `object`"),
        ({"keys": []}, "unknown field `keys`"),
        (_key(id="k"), "$.key[0].id"),
        (_key(material="c2hvcnQ="), "material is not 32 bytes in Base64"),
        (_key(aliases=["app"]), "app is not an alias name"),
        (_key(aliases=["alias/aws/s3"]), "alias/aws/s3 is not an alias name"),
        (_key(key_store="demo"), "both key_store and xks_key_id"),
        (_key(key_store="demo", xks_key_id="k"), "there is no key store demo"),
        (_key(enabled="yes"), "Expected `bool`"),
        ({"key": [{"id": ORDINARY}, {"id": ORDINARY}]}, "would be there twice"),
        ({"key": [{"id": i, "aliases": ["alias/a"]} for i in (ORDINARY, EXTERNAL)]}, "alias alias/a would be"),
        ({**FILE, "key": [{**FILE["key"][1], "id": i} for i in (ORDINARY, EXTERNAL)]}, "key-0 of cks-"),
        ({"key_store": FILE["key_store"] * 2}, "key store demo would be"),
        (_store(endpoint="http://x"), "$.key_store[0].endpoint"),
        (_store(path="/one"), "path must end with /kms/xks/v1"),
        (_store(secret_access_key="short"), "key_store 1 (demo)"),
        (_store(secret_access_key=None), "give credential_file"),
        (_store(credential_file="none.json"), "No such file"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_nothing_is_written(
    tmp_path: Path, settings: Settings, state: State, document: Any, words: str
) -> None:
    with pytest.raises(SeedError) as refused:
        planted(tmp_path, settings, document, state)
    assert words in str(refused.value)
    assert SECRET_ACCESS_KEY not in str(refused.value)
    assert state.select(Key) == []
    assert state.select(KeyStore) == []


@pytest.mark.parametrize(
    "changes", [{"material": encode_base64(bytes(32))}, {"key_store": "demo", "xks_key_id": "k"}]
)
def test_what_aws_cannot_change_must_be_as_it_is(
    tmp_path: Path, settings: Settings, state: State, changes: dict[str, str]
) -> None:
    planted(tmp_path, settings, FILE, state)
    with pytest.raises(SeedError, match=ORDINARY):
        planted(tmp_path, settings, _key(**changes), state)


def test_the_file_in_the_documentation_is_one_that_is_taken(tmp_path: Path, settings: Settings, state: State) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "local-kms.md").read_text()
    file = tmp_path / "seed.toml"
    file.write_text(page.partition("```toml foreign\n")[2].partition("```")[0])
    (tmp_path / "demo.credential.json").write_text(
        json.dumps({"AccessKeyId": ACCESS_KEY_ID, "RawSecretAccessKey": SECRET_ACCESS_KEY})
    )
    assert plant(file, settings, state, NOW) == 6
