"""Import float ONNX files as Keras models, so that all formats can be made of them."""
