"""`edgepack demo`: the whole way on one machine, with real processes, observed from outside."""

from edgepack.cli.demo.demo import add_arguments, run

__all__ = ["add_arguments", "run"]
