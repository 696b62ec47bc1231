"""Prepare float weights so that int8 keeps the answers; the result is still a Keras model."""
