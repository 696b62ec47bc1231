"""Find the preprocessing that a model was trained with, by its answers to labelled images."""
