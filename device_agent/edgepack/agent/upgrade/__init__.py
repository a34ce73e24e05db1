"""A new version of the agent beside the old one, tried, and taken back by itself when it fails.

`place` has the files, `environment` makes a release of signed wheels, `selfcheck` is what a release
must pass before it may run, `service` is systemd, `health` looks whether what runs does well, and
`upgrade` is the order in which all this happens. What an interruption leaves is settled by
`upgrade.settle`, which systemd calls before every start, with the code of the OLD release.
"""
