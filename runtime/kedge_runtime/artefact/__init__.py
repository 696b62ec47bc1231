"""The artefact: the sealed file, its contract, golden set, labels and signature."""
