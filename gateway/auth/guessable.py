"""Which passwords are guessed first: a list of those that leaked most often, and words at hand. Judges no strength.

As NIST SP 800-63B section 3.1.1.2 asks; it also says to ask for nothing else, no digits and no signs.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

LIST = "common_passwords.txt"
SERVICE = ("notification-gateway", "notification gateway", "notificationgateway", "notifications", "gateway")
"""What this service is called, as people type it."""
_WORD = re.compile(r"[^\W\d_](?:.*[^\W\d_])?", re.DOTALL)
"""From the first letter to the last. What begins with the digits in front takes time by the square of their number."""


def guessable(password: str, *, username: str) -> bool:
    """Whether ``password`` is a common one, or ``username`` or the service's name with nothing but digits and signs
    around it. Case counts nowhere."""
    typed, name = password.lower(), username.lower()
    bare = _bare(typed)
    near = {name, _bare(name), *SERVICE} - {""}
    return typed == name or bare in near or _listed(typed)


def _bare(text: str) -> str:
    found = _WORD.search(text)
    return found[0] if found else ""


def _listed(word: str) -> bool:
    # A search through 150 KB takes 60 microseconds; a set of the words would hold 2 MB for ever.
    return "\n" not in word and f"\n{word}\n" in _words()


@functools.cache
def _words() -> str:
    """Read when the first password is set."""
    text = resources.files("gateway.auth").joinpath(LIST).read_text(encoding="ascii")
    _, line, words = text.partition("\n========")
    if not line:
        raise ValueError(f"{LIST} is not whole")
    return words
