"""Where secrets lie: references, and the files of secret access keys."""
