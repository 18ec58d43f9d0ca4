"""A local AWS KMS for development and tests: AWS's clients on one side, any XKS proxy on the other.

Imports nothing of the proxy but `holdfast.xks` and the certificate rules, so that it can test the proxy
independently.
"""
