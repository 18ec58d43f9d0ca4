"""What lasts: the audit log on disk."""
