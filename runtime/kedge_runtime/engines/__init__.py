"""Inference engines: one module each, twins with one verb, `open_engine(content, options)`."""
