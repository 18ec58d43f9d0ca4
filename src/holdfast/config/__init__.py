"""The TOML file: what is installed (listeners, TLS, HSM modules, catalog URL, limits, logs)."""
