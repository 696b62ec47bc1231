"""Run a conversion in a worker process, and show its progress."""
