"""Is an XKS endpoint fit for AWS KMS? Seen from outside: this package imports nothing of the server but `xks`."""
