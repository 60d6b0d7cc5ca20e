"""What is wrong with the user's input, told in one sentence."""


class UserError(Exception):
    """One sentence that names the file or key and the mend; the command line prints it and exits with 2."""
