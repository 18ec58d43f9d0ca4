"""The server: HTTP, TLS, workers, event log, metrics, load-balancer health."""
