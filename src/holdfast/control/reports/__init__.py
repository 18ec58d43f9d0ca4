"""Reports for auditors and those who answer to them: what the catalog and the logs know, and what they do not."""
