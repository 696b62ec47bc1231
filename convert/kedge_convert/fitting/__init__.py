"""Find the preprocessing of a Keras model's training."""
