"""Storage that others share: DVC's remote, and MLflow's artifacts, in a bucket of any S3-compatible server.

    python -m pipelines.storage check [s3://BUCKET/PREFIX] | push [TARGET...] | pull [TARGET...]

Where the server is and who asks: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, as all programs for S3 read them; a
DVC remote's own settings (dvc remote modify) go before them. A bucket is checked before any work, in seconds.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from argan.errors import UserError
from pipelines.stage import fail, run_command, say

TIMEOUT = 5  # to connect; a bucket that takes longer is of no use


def check(url: str, remote: Mapping[str, str] | None = None) -> None:
    """Raises UserError unless the bucket of s3://BUCKET/PREFIX is there and may be listed. `remote`: a DVC remote's settings."""
    parts, remote = urlsplit(url), remote or {}
    if parts.scheme != "s3" or not parts.netloc:
        raise UserError(f"'{url}' is no bucket; write s3://BUCKET/PREFIX")
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    except ImportError as error:
        raise UserError("S3 needs a package: pip install 'argan[s3]'") from error
    endpoint = remote.get("endpointurl") or os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
    where = f"{url} at {endpoint or os.environ.get('AWS_ENDPOINT_URL') or 'Amazon'}"
    names = {
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "region": "region_name",
    }
    given: dict[str, Any] = {names[key]: value for key, value in remote.items() if key in names}
    try:
        session = boto3.Session(profile_name=remote.get("profile"))
        config = Config(connect_timeout=TIMEOUT, read_timeout=2 * TIMEOUT, retries={"total_max_attempts": 1})
        client = session.client("s3", endpoint_url=endpoint, config=config, **given)
        client.list_objects_v2(Bucket=parts.netloc, MaxKeys=1)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        reason = {
            "NoSuchBucket": f"the bucket {parts.netloc} is not there; create it, or fix its name",
            "404": f"the bucket {parts.netloc} is not there; create it, or fix its name",
            "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there; fix it",
            "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong; fix it",
        }.get(code, f"access refused ({code}); fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the bucket's rights")
        raise UserError(f"{where}: {reason}") from error
    except (BotoCoreError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} cannot be reached ({reason}); start it, or fix AWS_ENDPOINT_URL") from error


def remote() -> tuple[str, dict[str, str]]:
    """The default DVC remote of this repository: its URL and settings. Raises UserError."""
    config = configparser.ConfigParser(interpolation=None)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    name = config.get("core", "remote", fallback="")
    section = f"'remote \"{name}\"'"
    if not name or not config.has_section(section):
        raise UserError("no DVC remote is set: dvc remote add --default storage s3://BUCKET/PREFIX")
    return config[section]["url"], dict(config[section])


def dvc(command: str, targets: list[str]) -> None:
    """`dvc push` or `dvc pull`, the bucket checked before. Raises UserError."""
    url, settings = remote()
    if url.startswith("s3://"):
        check(url, settings)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", command, *targets], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        message = errors[-1].removeprefix("ERROR: ") if errors else "it printed no message"
        raise UserError(f"dvc {command} failed: {message}; run it again: what is there already is not sent again")
    say(f"{'pushed to' if command == 'push' else 'pulled from'} {url}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check"]:
            run_command(lambda: check(*remote()))
        case ["check", url]:
            run_command(lambda: check(url))
        case ["push" | "pull" as command, *targets]:
            run_command(lambda: dvc(command, targets))
        case _:
            fail("usage: python -m pipelines.storage check [s3://BUCKET/PREFIX] | push [TARGET...] | pull [TARGET...]")


if __name__ == "__main__":
    main(sys.argv[1:])
