"""Quantise float weights: candidates of every integer target, and the best of them."""
