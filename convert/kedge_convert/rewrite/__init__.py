"""Rewrite layers as others of the same function, where a toolkit or a device asks for it."""
