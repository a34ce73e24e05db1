"""From a sensor to a model, and from its answer to an action: `[[input]]` and `[[action]]`."""

__all__: list[str] = []
