"""The converter's half of drift: the float model's answers, and where a drift comes from."""
