"""What a device asks of an artefact: its compiler, a forecast, whether the file fits."""
