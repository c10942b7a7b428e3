"""What is secret is taken out of text, and what is foreign is made plain, before anybody sees or stores it."""

from __future__ import annotations

import re

# User and password: what stands before the last @ of the authority (RFC 3986, 3.2.1). A password that is not percent-encoded may
# hold / ? # and @ itself: after "name:" that begins no port, everything up to the last @ counts.
USER = r"""(?:[^\s/:@[\]"'<>]*:(?!\d{1,5}(?:[/?#\s]|$))[^\s"'<>]*@|[^\s/?#"'<>]*@)"""
# Parameters of addresses that are signed or carry a key: of S3 and CloudFront, Google, Azure (sig), and of web services at large
PARTS = (
    "password", "passwd", "passphrase", "pwd", "token", "secret", "signature", "credential", "policy",
    "apikey", "api_key", "api-key", "accesskey", "access_key", "access-key", "authorization", "session", "jwt",
)  # fmt: skip
NAMES = ("sig", "key", "auth", "pass", "pw", "code", "user", "username")
VARIABLE = r"\$\{\w+\}"  # the name of a variable of the environment is no secret
# nor are a user whose password is such a variable, and what stands for both in a manual
HARMLESS = rf"(?:user:password|(?:[\w.-]*|{VARIABLE}):{VARIABLE}|{VARIABLE})@"


def _any_case(word: str) -> str:
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word)


_PART, _NAME = ("|".join(map(_any_case, words)) for words in (PARTS, NAMES))
QUERY = rf"(?:[\w.%-]*(?:{_PART})[\w.%-]*|{_NAME})="  # without flags, lookbehind and named groups: for JSON Schema too
# A regular expression of JSON Schema (ECMA-262): text in which `redacted` finds nothing
NO_SECRET = rf"""^(?!.*://(?!{HARMLESS}){USER})(?!.*://.*[?&;#]{QUERY}(?!{VARIABLE})[^\s&;#"'<>])"""

_USER = re.compile(rf"(?<=://){USER}")
_QUERY = re.compile(rf"""(?<=[?&;#])({QUERY})([^\s&;#"'<>]+)""")
SPECIAL = {character: f"&#{ord(character)};" for character in "\\`*_[]<>|!~#&\"'"}


def redacted(text: str) -> str:
    """`text` with every URL in it free of user and password, and with *** for the values of parameters that look secret.

    `${NAME}`, which stands for a variable of the environment, stays.
    """
    if "://" not in text:
        return text
    text = _USER.sub(lambda found: found[0] if re.fullmatch(HARMLESS, found[0]) else "", text)
    return _QUERY.sub(lambda found: found[0] if re.fullmatch(VARIABLE, found[2]) else f"{found[1]}***", text)


def markdown(text: object) -> str:
    """Foreign text as one line of Markdown that shows just that: no HTML, link, picture, code span, table cell or new line."""
    line = " ".join(redacted(str(text)).split())
    return "".join(SPECIAL.get(c, c) for c in line if c.isprintable())
