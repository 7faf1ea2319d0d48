"""What a user did wrong, said in one line, and no secret in it. Anything else that escapes is a bug, of ours
or of a plugin, and keeps its traceback.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import quote

# in the name of an environment variable
SECRET = re.compile(r"key|token|secret|passw|passphrase|_pwd|credential", re.IGNORECASE)
HIDDEN = "(redacted)"  # plain text in YAML, JSON, Markdown and addresses
PASSWORD_BEFORE_HOST = re.compile(r"(\b[\w+.-]+://[^\s/:@'\"]*:)[^\s/'\"\\]*@")
PASSWORD_IN_QUERY = re.compile(
    r"((?:[?&;#](?:[\w-]*(?:password|passwd|passphrase|secret|api[-_]?key)|(?:[\w-]*[-_])?(?:pwd|token|key))"
    r"|(?<![\w.])(?:ssl)?(?:password|passwd|passphrase))=)[^\s&;#'\"\\]+",  # in an address; of a driver
    re.IGNORECASE,
)
# of an address with a name: that, and all up to the last @; of a text that may hold several, up to the next
ADDRESS = re.compile(r"[\w+.-]+://([^\s/:@'\"]*:)(?=(.*)@)", re.DOTALL)
ADDRESSES = re.compile(r"[\w+.-]+://([^\s/:@'\"]*:)(?=((?:(?!://).)*)@)", re.DOTALL)
PORT = re.compile(r"\d+(?=/|$)")
MOST_ENDS = 8  # that are tried of a password in a text
LONGEST = 900  # letters of a line that somebody reads
SHORTEST_SECRET = 8  # letters; shorter values are words that occur by themselves


class UserError(Exception):
    """One readable line: what is wrong, where it stands, what to do. The command line exits with status 2."""


class ConfigError(UserError):
    """A config that cannot be run: an unknown key or option, a wrong type, an impossible value or
    combination.
    """


class DataError(UserError):
    """A dataset, a column, a label or a file that is not what the config says it is."""


class RunError(UserError):
    """A run folder that is missing, unfinished, damaged or in use."""


class ToldElsewhereError(UserError):
    """Another process of the same run tells what went wrong; this one only ends."""


class PeerLostError(RunError):
    """Another process of the same run has ended without a word; this one tells."""


class DivergedError(UserError):
    """The loss, a gradient or a score is no longer a finite number."""


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option a typist most likely meant, or None where nothing comes close."""
    close = difflib.get_close_matches(
        word.lower(), [option for option in options if option], n=1, cutoff=0.55
    )
    return close[0] if close else None


def did_you_mean(word: str, options: Iterable[str], *, most: int = 12) -> str:
    """`did you mean 'x'?` where something is close, followed by the options where they are few enough to
    read.
    """
    names = list(dict.fromkeys(options))
    close = nearest(word, names)
    guess = f"did you mean '{close}'? " if close else ""
    listed = ", ".join(names[:most]) + (", …" if len(names) > most else "")
    return f"{guess}(options: {listed})" if names else guess.strip()


def shortened(text: str, most: int = 100) -> str:
    """A text that fits on a line; what is cut ends with a sign."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_line(error: BaseException, most: int | None = 160) -> str:
    """What an error says first, at most so many characters of it; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def one_line(text: str) -> str:
    """Text as one line that a terminal shows and does not obey: signs that do not print are escapes."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 4 :]}"
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def secrets() -> list[str]:
    """Values of the environment's variables that are called secret, as they are and as JSON, YAML and
    addresses write them.
    """
    values: list[str] = []
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET.search(name) and not os.path.exists(value):  # noqa: PTH110  # a path is none
            values += {
                value,
                json.dumps(value)[1:-1],
                value.replace("'", "''"),
                quote(value),
                quote(value, safe=""),
            }
    return sorted(values, key=len, reverse=True)


_given: dict[str, str] = {}  # a name with its password -> what is shown, the longest first


def hide_passwords(text: str, is_address: bool = False) -> None:
    """Keep the passwords of the addresses in a text that somebody gave to this process out of all that
    leaves it, whatever letters they have: in a longer text nobody can tell where such a one ends.

    `is_address`: it is one, so that a number after a colon is no port.
    """
    if is_address:
        found = ADDRESS.match(text)
        given = [found.groups()] if found else []
    else:
        given = [
            (user, rest[:end])
            for user, rest in (found.groups() for found in ADDRESSES.finditer(text))
            if not PORT.match(rest)
            for end in _ends(rest)
        ]
    for user, password in given:
        plain = re.sub(r"\\(['\"\\])", r"\1", password)  # as it stands within quotes
        for one in filter(None, (password, plain)):
            for spelling in _spellings(f"{user}{one}@"):
                _given[spelling] = f"{user}{HIDDEN}@"
    for spelling in sorted(_given, key=len, reverse=True) if given else ():
        _given[spelling] = _given.pop(spelling)


def _ends(rest: str) -> list[int]:
    """Where a password may end that a @ follows: the first places, and the last."""
    ends = [place for place, letter in enumerate(f"{rest}@") if letter == "@"]
    return [*ends[:MOST_ENDS], ends[-1]]


def _spellings(value: str) -> set[str]:
    """As it is, and as JSON, YAML, Hydra and a shell write it within quotes."""
    return {
        value, json.dumps(value)[1:-1], value.replace("'", "''"), value.replace("'", "\\'"),
        value.replace("'", "'\"'\"'"),
    }  # fmt: skip


def redact(text: str, hidden: Iterable[str] | None = None) -> str:
    """Text as it may leave this process: without passwords in addresses, and without `hidden`, or else
    without `secrets()`.
    """
    for given, shown in _given.items():
        text = text.replace(given, shown)
    if "://" in text:
        text = PASSWORD_BEFORE_HOST.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = PASSWORD_IN_QUERY.sub(rf"\1{HIDDEN}", text)
    for value in secrets() if hidden is None else hidden:
        text = text.replace(value, HIDDEN)
    return text
