"""The exit codes, which are part of the interface."""

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "a defect of edgepack",
    2: "usage or configuration",
    3: "model or data cannot be used",
    4: "bad bundle",
    5: "not trusted",
    6: "tolerance missed or self-test failed",
    7: "broker or network, or not done in time",
    8: "refused or rolled back by a device",
    9: "disk",
    130: "interrupted",
}


def epilog() -> str:
    """The end of every --help."""
    lines = [f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["exit codes:", *lines])
