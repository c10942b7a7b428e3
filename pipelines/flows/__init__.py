"""The Prefect flows: retrain one domain or all, take in new photographs, judge champions anew. They drive DVC and no more.

No server need be set up: without PREFECT_API_URL Prefect starts one for the length of the run. Its database lies in
.prefect/ here unless PREFECT_HOME says otherwise.
"""

import os
import secrets
from pathlib import Path

# A web page or another account of this machine could cancel runs of that server and read their logs. Its password is made here,
# unless a home or profile of the user's own may name another server.
if not os.environ.keys() & {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_AUTH_STRING"}:
    os.environ["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_SERVER_API_AUTH_STRING"] = (
        f"argan:{secrets.token_urlsafe(18)}"
    )
os.environ.setdefault("PREFECT_HOME", str(Path(".prefect").absolute()))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
# 10 s when quiet; a busy machine takes its time
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
