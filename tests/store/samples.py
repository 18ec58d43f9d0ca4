"""Names and secrets for tests."""

from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

ID = AccessKeyId.parse("AAAAAAAAAAAAAAAAAAAA")
OTHER_ID = AccessKeyId.parse("BBBBBBBBBBBBBBBBBBBB")
SECRET = SecretAccessKey.parse("s" * 43)
OTHER_SECRET = SecretAccessKey.parse("t" * 64)
KEY = ExternalKeyId.parse("key-1")
OTHER_KEY = ExternalKeyId.parse("key-2")
PREFIX = UriPathPrefix.parse("/main")
