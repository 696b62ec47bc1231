"""Run models on inference engines: one module each with `open_engine(content, options)`."""
