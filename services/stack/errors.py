"""One error for the whole package, so that `fraud up` can print it instead of a traceback."""


class StackError(RuntimeError):
    """The stack cannot start or go on. The text says to the person at the terminal what to do."""
