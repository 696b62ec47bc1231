"""kedge's converter: Keras models to sealed, verified TFLite and ONNX artefacts."""
