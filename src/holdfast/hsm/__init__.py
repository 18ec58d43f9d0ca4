"""The external key manager: HSMs that hold the keys, and what can go wrong with them."""
