"""The audit log, pure: records, Merkle tree, notes, checkpoints, tiles, proofs and their verification (C2SP)."""
