"""One module for each kind of model file, behind the Protocol in `sources.source`."""
