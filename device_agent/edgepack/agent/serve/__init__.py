"""Serving: the models that answer, and the requests that reach them."""

__all__: list[str] = []
