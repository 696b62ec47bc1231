"""Check artefacts for a device: its compiler, a forecast, and whether the file fits."""
