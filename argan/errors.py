"""The one exception for mistakes a user can fix."""

from __future__ import annotations

from argan.redact import redacted


class UserError(Exception):
    """One clear line: what is wrong (file or parameter), why, and the way out.

    The command line and the pipeline stages print it as it is and exit with code 2; no traceback. Whatever it quotes, passwords
    in addresses do not get into it. Cut a quoted message only after `redacted`: of half an address no password can be told.
    """

    def __init__(self, line: str = "") -> None:
        super().__init__(redacted(line))
