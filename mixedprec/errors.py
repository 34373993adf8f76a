"""The one error a user can mend."""


class InputError(Exception):
    """Input that cannot be used: `what` is wrong, and the `remedy` that mends it.

    The command line prints it as one line and exits with code 2; it never shows a traceback.
    """

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str]]:
        """Another process raises the same."""
        return InputError, (self.what, self.remedy)
