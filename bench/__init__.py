"""The six figures of `make bench`, all from one run."""
