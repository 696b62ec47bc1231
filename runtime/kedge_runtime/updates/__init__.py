"""Updates: fetch an artefact, try it beside the old one, and switch to it or back."""
