"""Reporting: what the device says, kept on disk while nobody listens."""

__all__: list[str] = []
