"""Serve a model and its stream over HTTP: a page, an interface for programs, and figures.

`app.py` has the routes and `server.py` runs them. `view.py` holds what the page shows, `uploads.py`
classifies what is posted, `labelling.py` moves unsure images, `access.py` decides who may ask.
Needs the extra `serve`.
"""
