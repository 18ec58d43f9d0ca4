"""`holdfast init`, SoftHSM, local TLS, and the migration from AWS's sample proxy."""
