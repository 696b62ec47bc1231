"""Accuracy drift: an artefact against the float model, image by image, with a verdict."""
