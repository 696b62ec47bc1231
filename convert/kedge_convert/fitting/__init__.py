"""Hold a Keras model against every known preprocessing."""
