"""What an operator does: key lifecycle, credentials, keystores, doctor, migration."""
