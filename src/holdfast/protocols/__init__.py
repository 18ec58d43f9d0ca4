"""The protocols by which clouds ask for cryptography, without HTTP."""
