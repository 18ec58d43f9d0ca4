"""The parent process: ports, workers, configuration, metrics."""
