"""On PYTHONPATH, lets every Python process find the bad engines: also the agent's children."""

from support import bad_engines

bad_engines.install()
