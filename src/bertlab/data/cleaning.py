"""Texts as they are meant: without markup, links and names of users, or the traces of a treebank's
tokenisation.
"""

import html
import re


def clean_html(value: str) -> str:
    """Tags become spaces, entities characters, runs of white space one space."""
    return " ".join(html.unescape(re.sub(r"</?[a-zA-Z!][^<>]{0,200}>", " ", value)).split())


def clean_tweet(value: str) -> str:
    """Entities to characters, links become `http`, user names `@user` (what a link or a name says is not
    sentiment).
    """
    value = html.unescape(html.unescape(value))
    value = re.sub(r"(https?://|www\.)\S+", "http", value, flags=re.IGNORECASE)
    return " ".join(re.sub(r"(?<!\w)@\w+", "@user", value).split())


def clean_treebank(value: str) -> str:
    """Text as it was before Penn-Treebank tokenisation: `it is n't good , -lrb- he 'd say -rrb- .` to `it
    isn't good, (he'd say).`
    """
    for token, mark in (
        ("-lrb-", "("),
        ("-rrb-", ")"),
        ("-lsb-", "["),
        ("-rsb-", "]"),
        ("``", '"'),
        ("''", '"'),
        ("`", "'"),
        ("\\/", "/"),
        ("\\*", "*"),
    ):
        value = value.replace(token, mark)
    value = re.sub(r"\s+(n't|'(?:s|re|ve|ll|d|m)?)(?=\s|$)", r"\1", value)
    value = re.sub(r"\s+([.,;:!?)\]%]+)(?=\s|[.,;:!?)\]%]|$)", r"\1", value)
    return " ".join(re.sub(r"([(\[$])\s+", r"\1", value).split())


CLEANERS = {"html": clean_html, "tweet": clean_tweet, "treebank": clean_treebank}
