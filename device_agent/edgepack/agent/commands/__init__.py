"""What people call on a device: a module for each group of `edgepack-agent` verbs.

Each has functions that add arguments to a parser and functions that do the work and give the exit
code; `edgepack.agent.commands.table` says which verb is where. A module is imported only when its
verb is called, so `run` pays for none of the others.
"""
