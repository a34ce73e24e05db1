"""Where bundles come from: one module for each scheme behind one Protocol; see `source.py`."""
