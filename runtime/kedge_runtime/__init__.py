"""kedge on the device: run a sealed image classifier with numpy, OpenCV and an engine."""

__version__ = "0.1.0"
