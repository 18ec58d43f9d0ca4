"""HTTP/1.1 and TLS: listeners, connections, framing."""
