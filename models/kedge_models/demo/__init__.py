"""Provide the demo: a small classifier of pictograms, to try everything offline.

It is a MobileNet (alpha 0.25, 96x96 pixels, RGB, each byte / 127.5 - 1) which `train.py` trains on
images that `pictograms.py` renders. Its accuracy shows how faithful a conversion is; it says
nothing about photos.
"""
