"""Which variant and which settings are best on this device: tried in processes of their own.

`values` says what is asked and answered, `choose` decides (pure), `subject` is the process that
runs one candidate, `processes` starts, asks and ends such processes, `ring` measures,
`tune` finds the settings, `contest` puts it together.
"""

__all__: list[str] = []
