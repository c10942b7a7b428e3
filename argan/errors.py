"""The one exception for mistakes a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """One clear line: what is wrong (file or parameter), why, and the way out.

    The command line and the pipeline stages print it as it is and exit with code 2; no traceback.
    """
