"""Errors that the user can mend, in one sentence."""


class UserError(Exception):
    """One sentence that names the file or key and the fix; the command line prints it and exits with 2."""


class DivergedError(UserError):
    """The loss or the weights of a training are not finite any more."""
