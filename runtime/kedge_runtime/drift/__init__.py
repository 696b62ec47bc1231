"""Accuracy drift: an artefact against the float original, picture by picture, with a verdict."""
