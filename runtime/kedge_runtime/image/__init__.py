"""From a file's bytes to the engine's input: decode, resize, normalise."""
