"""The process that writes the node's audit log: it seals what the workers have spooled, and signs."""
