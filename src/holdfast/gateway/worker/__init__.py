"""One worker process: the event loop, HSM sessions, its view of the catalog."""
