"""What looks at the wire from the other side: the endpoint checker, a local AWS KMS, the meaning of errors."""
