"""What a policy can speak of: the Cedar schema that every policy file is validated against."""

SCHEMA = """\
// Who called KMS. The id is awsPrincipalArn: an ARN, or for AWS's own calls "ec2.amazonaws.com" or "AWS Internal".
// "account" is empty where the ARN has none.
entity AwsPrincipal = {
  arn: String,
  account: String,
  isAwsService: Bool,
};

// The id is the keystore's name.
entity Keystore;

// The id is KEYSTORE/EXTERNAL-KEY-ID, as in ExternalKey::"payments/orders-2026".
entity ExternalKey in [Keystore] = {
  keystore: String,
  externalKeyId: String,
};

// kmsKeyAccount and region are those of kmsKeyArn; empty where it has none.
type Use = {
  kmsOperation: String,
  kmsKeyArn: String,
  kmsKeyAccount: String,
  region: String,
  kmsViaService?: String,
  awsSourceVpc?: String,
  awsSourceVpce?: String,
};

// KMS does not name a KMS key when it creates or describes one.
type Look = {
  kmsOperation: String,
  kmsKeyArn?: String,
  kmsKeyAccount?: String,
  region?: String,
  kmsViaService?: String,
  awsSourceVpc?: String,
  awsSourceVpce?: String,
};

action Encrypt, Decrypt appliesTo {
  principal: AwsPrincipal,
  resource: ExternalKey,
  context: Use,
};

action GetKeyMetadata appliesTo {
  principal: AwsPrincipal,
  resource: ExternalKey,
  context: Look,
};
"""
