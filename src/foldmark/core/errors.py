"""An error in the user's input, in one sentence."""


class UserError(Exception):
    """One sentence that names the file or key and the fix; the command line prints it and exits with 2."""
