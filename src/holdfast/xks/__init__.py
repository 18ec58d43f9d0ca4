"""The XKS Proxy API v1 as bytes and values: no clock, randomness, I/O, logging or threads."""
