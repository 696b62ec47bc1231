"""Load models of every source as one float Keras model, ready for conversion."""
