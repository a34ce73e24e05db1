"""Serving over HTTP: imported only when agent.toml has `[http]`."""
