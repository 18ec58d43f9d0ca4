"""What changes an installation: keys, credentials, keystores, plans."""
