"""Engines, one file each; a file's `ENGINE` is found by the name of its module."""

from edgepack.runtime.engines.find import engine_named, engine_names

__all__ = ["engine_named", "engine_names"]
