"""The settings of AWS's sample proxy are read as that proxy reads them; what cannot be in use is refused."""

from pathlib import Path

import pytest

from holdfast.control.errors import Invalid
from holdfast.hsm.settings import IvMode
from holdfast.setup.aws_sample import read_settings

SECRET = "MarkedSecretAccessKeyOfTheSampleProxy0123456789"
PIN = "marked-pin-8317"
ACCESS_KEY_ID = "SAMPLEPROXYACCESSKEY234"


def settings(**changes: str) -> str:
    """A complete settings file in that proxy's format; each change replaces a value."""
    values = {
        "prefix": '"/example/prefix"',
        "id": f'"{ACCESS_KEY_ID}"',
        "secret": f'"{SECRET}"',
        "keys": '["alpha", "beta"]',
        "pin": f'"{PIN}"',
        "module": '"/opt/nfast/toolkits/pkcs11/libcknfast.so"',
        "iv": "true",
        "zero": "true",
        "server": "",
        "region": '"eu-central-1"',
        "more": "",
    } | changes
    return """
[server]
ip = "0.0.0.0"
port = 443
region = {region}
service = "kms-xks-proxy"
{server}
[security]
is_sigv4_auth_enabled = true
is_tls_enabled = false
is_mtls_enabled = false
[[external_key_stores]]
uri_path_prefix = {prefix}
sigv4_access_key_id = {id}
sigv4_secret_access_key = {secret}
xks_key_id_set = {keys}
[pkcs11]
session_pool_max_size = 30
user_pin = {pin}
PKCS11_HSM_MODULE = {module}
[limits]
max_plaintext_in_base64 = 8192
max_aad_in_base64 = 16384
[hsm_capabilities]
can_generate_iv = {iv}
is_zero_iv_required = {zero}
{more}
""".format_map(values)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_settings_are_read(file: Path) -> None:
    file.write_text(settings())
    read = read_settings(file, variables={})
    store = read.external_key_stores[0]
    assert (store.name, store.uri_path_prefix, store.xks_key_id_set) == (
        "example-prefix",
        "/example/prefix",
        ["alpha", "beta"],
    )
    assert read.server.region == "eu-central-1"


@pytest.mark.parametrize(
    ("can_generate", "zero", "mode"),
    [
        ("true", "true", IvMode.HSM_IN_PLACE),
        ("true", "false", IvMode.HSM_APPENDED),
        ("false", "false", IvMode.PROXY),
    ],
)
def test_capabilities_say_who_makes_the_iv(file: Path, can_generate: str, zero: str, mode: IvMode) -> None:
    """NShield and CloudHSM; Luna; SoftHSM: as that proxy's example files set them."""
    file.write_text(settings(iv=can_generate, zero=zero))
    assert read_settings(file, variables={}).hsm_capabilities.iv_mode is mode


def test_module_behind_the_logger_is_the_one_meant(file: Path) -> None:
    logger = '[pkcs11_logger]\nPKCS11_LOGGER_LIBRARY_PATH = "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"'
    file.write_text(settings(module='"/usr/lib/pkcs11-logger-x64.so"', more=logger))
    assert read_settings(file, variables={}).library == "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"


def test_the_environment_names_the_module_before_the_file(file: Path) -> None:
    """As that proxy has it, so that one file serves with and without the logging module."""
    file.write_text(settings())
    logger = {"PKCS11_HSM_MODULE": "/opt/pkcs11-logger-x64.so", "PKCS11_LOGGER_LIBRARY_PATH": "/opt/libvendor.so"}
    read = read_settings(file, variables=logger)
    assert (read.pkcs11.module, read.library) == ("/opt/pkcs11-logger-x64.so", "/opt/libvendor.so")


@pytest.mark.parametrize(("written", "read"), [("", None), ('ciphertext_metadata_b64 = "djAuMC4x"', b"v0.0.1")])
def test_constant_metadata(file: Path, written: str, read: bytes | None) -> None:
    file.write_text(settings(server=written))
    assert read_settings(file, variables={}).ciphertext_metadata == read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secret": '"PleaseReplaceThisWithSomeSecretOfLength43To64"'}, "is the placeholder"),
        ({"id": '""'}, "20 to 30"),
        ({"secret": '""'}, "43 to 64"),
        ({"id": '""', "secret": '""'}, "has no credential"),
        ({"id": '"too-short"'}, "20 to 30"),
        ({"secret": '"marked-too-short"'}, "43 to 64"),
        ({"prefix": '"no-slash"'}, "path prefix"),
        ({"keys": '["spaces are not allowed"]'}, "externalKeyId"),
        ({"server": 'ciphertext_metadata_b64 = "QR=="'}, "canonical Base64"),
        ({"server": f'ciphertext_metadata_b64 = "{"QUFB" * 7}"'}, "more than 20 bytes"),
        ({"server": 'ciphertext_metadata_b64 = "AQAAAAE="'}, "Holdfast's own metadata"),
        ({"server": 'ciphertext_metadata_b64 = "dj0xBQEAAAAB"'}, "Holdfast's own metadata"),
        ({"region": '"frankfurt"'}, "not an AWS region"),
        ({"iv": '"yes"'}, "hsm_capabilities"),
        ({"pin": "[1"}, "not TOML"),
    ],
)
def test_refusal_names_the_place_and_no_secret(file: Path, change: dict[str, str], said: str) -> None:
    file.write_text(settings(**change))
    with pytest.raises(Invalid) as caught:
        read_settings(file, variables={})
    text = caught.value.message + caught.value.hint
    assert said in text
    assert "marked" not in text.lower()


def test_values_do_not_print_their_secrets(file: Path) -> None:
    file.write_text(settings())
    assert "marked" not in repr(read_settings(file, variables={})).lower()


@pytest.mark.parametrize(
    "region",
    ["eu-central-1", "us-gov-west-1", "cn-northwest-1", "eusc-de-east-1", "us-isob-east-1", "ap-southeast-5"],
)
def test_regions_of_every_partition_are_taken(file: Path, region: str) -> None:
    file.write_text(settings(region=f'"{region}"'))
    assert read_settings(file, variables={}).server.region == region


@pytest.mark.parametrize(
    ("credential", "unused"),
    [
        ('sigv4_access_key_id = ""\nsigv4_secret_access_key = ""', True),
        (
            (
                'sigv4_access_key_id = "BETWEEN2TENAND3TENCHARACTERS"\n'
                'sigv4_secret_access_key = "PleaseReplaceThisWithSomeSecretOfLength43To64"'
            ),
            False,
        ),
    ],
    ids=["empty", "placeholder"],
)
def test_key_store_of_the_example_files_is_left_out(file: Path, credential: str, unused: bool) -> None:  # noqa: FBT001
    """Each of that proxy's example files has one that nobody removes; the others are taken over."""
    example = f'[[external_key_stores]]\nuri_path_prefix = ""\n{credential}\nxks_key_id_set = ["foo", "cat"]'
    file.write_text(settings(more=example))
    read = read_settings(file, variables={})
    assert [store.uri_path_prefix for store in read.stores] == ["/example/prefix"]
    left_out = read.external_key_stores[1]
    assert (left_out.left_out != "", left_out.is_unused) == (True, unused)


@pytest.mark.parametrize(("pin", "placeholder"), [("replaceme", True), ("", True), ("1234", False)])
def test_placeholder_pin_is_told_from_a_real_one(file: Path, pin: str, placeholder: bool) -> None:  # noqa: FBT001
    file.write_text(settings(pin=f'"{pin}"'))
    assert read_settings(file, variables={}).pin_is_placeholder is placeholder


_SECOND = """
[[external_key_stores]]
uri_path_prefix = "{prefix}"
sigv4_access_key_id = "{access_key_id}"
sigv4_secret_access_key = "AnotherSecretAccessKeyOfTheSampleProxy0123456789"
xks_key_id_set = ["gamma"]
"""


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"prefix": "/example-prefix", "access_key_id": "ANOTHERACCESSKEYID234567"}, "both be the keystore"),
        ({"prefix": "/other", "access_key_id": ACCESS_KEY_ID}, "have one sigv4_access_key_id"),
    ],
)
def test_two_key_stores_never_become_one(file: Path, second: dict[str, str], said: str) -> None:
    """`/example/prefix` and `/example-prefix` have one name here: one would get the other's credentials and keys."""
    file.write_text(settings(more=_SECOND.format_map(second)))
    with pytest.raises(Invalid, match=said):
        read_settings(file, variables={})


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("", "default"), ("/Prod_EU/a", "prod-eu-a"), ("/-x_", "x"), ("/_", "default"), ("/" + "a" * 100, "a" * 63)],
)
def test_every_prefix_gives_a_name_that_the_catalog_takes(file: Path, prefix: str, name: str) -> None:
    file.write_text(settings(prefix=f'"{prefix}"'))
    (store,) = read_settings(file, variables={}).external_key_stores
    assert store.name == name
