"""Passwords and keys in addresses come into no message, and foreign text comes into Markdown as text."""

from __future__ import annotations

import copy
import re

import pytest

from argan.errors import UserError
from argan.redact import NO_SECRET, markdown, redacted

SECRET = [
    ("ftp://camera:hunter2@host/photos", "ftp://host/photos"),
    ("cannot reach ftp://camera:hunter2@host/photos: timed out", "cannot reach ftp://host/photos: timed out"),
    ('{"a": "ftp://u:hunter2@h/x", "b": "mail@example.org"}', '{"a": "ftp://h/x", "b": "mail@example.org"}'),
    ("https://ghp_hunter2@example.org/x.zip", "https://example.org/x.zip"),
    ("redis://:hunter2@host", "redis://host"),
    ("postgresql+psycopg://u:hunter2@/mlflow?host=/run/pg", "postgresql+psycopg:///mlflow?host=/run/pg"),
    ("http://user:hun/ter2@host/x", "http://host/x"),  # a password that should have been percent-encoded
    ("http://user:hun?ter2@host/x", "http://host/x"),
    ("http://user:hun@t/er2@host/x", "http://host/x"),
    ("http://user:hunter2@[::1]:5000/x", "http://[::1]:5000/x"),
    ("postgresql://db/x?user=u&password=hunter2", "postgresql://db/x?user=***&password=***"),
    ("https://b.s3.amazonaws.com/x?X-Amz-Signature=hunter2&X-Amz-Expires=9", "https://b.s3.amazonaws.com/x?X-Amz-Signature=***&X-Amz-Expires=9"),
    ("https://b.s3.amazonaws.com/x?AWSAccessKeyId=hunter2", "https://b.s3.amazonaws.com/x?AWSAccessKeyId=***"),
    ("https://a.blob.core.windows.net/c?sv=1&sig=hunter2", "https://a.blob.core.windows.net/c?sv=1&sig=***"),
    ("https://x/y?TOKEN=hunter2#access_token=hunter2", "https://x/y?TOKEN=***#access_token=***"),
    ("simplecache::ftp://u:hunter2@host/x", "simplecache::ftp://host/x"),
    ("one ftp://a:hunter2@b, two ftp://c:hunter2@d", "one ftp://b, two ftp://d"),
]  # fmt: skip
HARMLESS = [
    "no address at all, user:password@ or not",
    "https://example.org:8080/users/@me",
    "http://[::1]:5000/x@y",
    "sqlite:////home/me@work/mlflow.db",
    "s3://bucket/a@b/c",
    "https://example.org/x.zip?download=1&size=2",
    "write it as postgresql://user:password@host:5432/",
    "ftp://camera:${CAMERA_PASSWORD}@host/photos",
    "ftp://${USER}:${PASSWORD}@host/photos",
    "https://${TOKEN}@host/x?sig=${SIGNATURE}&n=1",
]


@pytest.mark.parametrize(("text", "shown"), SECRET)
def test_secrets_go(text: str, shown: str) -> None:
    assert redacted(text) == shown == redacted(shown)
    assert not re.search(NO_SECRET, text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text and re.search(NO_SECRET, text)


def test_no_error_for_users_holds_a_password() -> None:
    error = UserError("ftp://camera:hunter2@host/photos is not there")
    assert str(error) == "ftp://host/photos is not there" == str(copy.copy(error))


def test_foreign_text_is_one_line_of_text() -> None:
    text = markdown(
        "`</code><img src=x onerror=alert(1)> | a\n\n# b [c](javascript:d) ![e](f)\x1b[31m ftp://u:hunter2@host"
    )
    assert not set(text) & set("`<>|[]!\n\x1b\"'*_") and "hunter2" not in text
    assert "alert(1)" in text and re.sub(r"&#\d+;", "", text).count("#") == 0
