"""Exceptions that tell a user in one line what went wrong."""


class UsageError(Exception):
    """Something the user asked for cannot be done as asked.

    The message is one line that names the file (or option), the key and what was
    expected. The command line prints it and exits with status 2; no traceback.
    """


def shown(given: object) -> str:
    """What a user gave, as a message shows it: on one line of 100 characters at most."""
    line = " ".join(repr(given).split())
    return line if len(line) <= 100 else f"{line[:97]}..."


class StorageError(Exception):
    """A file or folder could not be made, read or written: one line that names it and says why."""


class RunsFailed(Exception):
    """Runs were carried out and some of them failed: one line that says which, and why."""
