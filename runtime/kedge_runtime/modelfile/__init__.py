"""Read and check model files of unknown origin, without any engine."""
