"""`argan serve`: an HTTP interface with limits, worker processes that can be killed, and the guard of every server."""
