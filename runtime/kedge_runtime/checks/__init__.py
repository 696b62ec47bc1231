"""Check an artefact on a machine, time it, and examine the machine."""
