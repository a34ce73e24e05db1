"""`edgepack-agent uninstall`: what this device left on the broker, and what lies on its disk.

`retained` clears topics, `files` deletes; the order is the command's.
"""
