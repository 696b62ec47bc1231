"""Load models, whatever made them, as one float Keras model in the form that converts."""
