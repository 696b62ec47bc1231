"""The demo: a small classifier of pictograms, so that everything can be tried offline.

It is a demo and nothing else: a MobileNet (alpha 0.25, 96x96 pixels, RGB, each byte / 127.5 - 1)
which `train.py` trains on images that `pictograms.py` renders. Its accuracy says how faithful a
conversion is; it says nothing about photos.
"""
