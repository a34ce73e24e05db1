"""The agent as a systemd service: its unit, and what it tells systemd."""
