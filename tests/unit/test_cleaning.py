"""Texts as they are meant: markup, links and names of users taken out, nothing else touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlab.data.cleaning import clean_html, clean_tweet


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a<br /><br />b", "a b"), ("<b>bold</b> &amp; &quot;quoted&quot;", 'bold & "quoted"'),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("caf&eacute;\n\n  au\tlait ", "café au lait"), ("&lt;b&gt;", "<b>"), ("", ""),
    ],
)  # fmt: skip
def test_html_becomes_text(raw: str, cleaned: str) -> None:
    assert clean_html(raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("@switchfoot http://twitpic.com/2y1zl - Awww, that's a bummer.",
        "@user http - Awww, that's a bummer."),
        ("see www.example.com/a?b=c now", "see http now"), ("&amp;quot;hi&amp;quot; &lt;3", '"hi" <3'),
        ("RT @a_1: @b!", "RT @user: @user!"),
        ("HTTPS://EXAMPLE.COM is loud", "http is loud"),
        ("  too   many\nspaces ", "too many spaces"), ("me@example.com", "me@example.com"),
    ],
)  # fmt: skip
def test_tweets_lose_links_names_and_entities(raw: str, cleaned: str) -> None:
    assert clean_tweet(raw) == cleaned


@given(st.text())
def test_cleaning_twice_changes_nothing_more_in_plain_text(text: str) -> None:
    plain = text.replace("&", "").replace("<", "")
    for clean in (clean_html, clean_tweet):
        assert clean(clean(plain)) == clean(plain)
