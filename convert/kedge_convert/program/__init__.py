"""Import float programs (TFLite files) as Keras models, so that their weights can be prepared."""
