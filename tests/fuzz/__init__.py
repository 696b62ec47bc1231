"""Fuzzers of every door: whatever reads bytes that a stranger may have written.

`doors` is the registry. `python -m fuzz` (or `make fuzz MINUTES=10`) feeds all of them; the same
inputs, few of each, are in `tests/test_fuzz.py`. docs/testing.md tells more.
"""
