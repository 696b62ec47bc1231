"""Readers of model files of unknown origin, without any engine."""
