"""Holdfast: AWS KMS external key store (XKS) proxy and key manager over PKCS#11."""
