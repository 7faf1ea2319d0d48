"""What leaves this process holds no password, and is otherwise what it was."""

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bertlab import errors
from bertlab.config.trust import hide_storage
from bertlab.errors import HIDDEN, PORT, hide_passwords, redact, secrets

SIGNS = "abz09/'\":@ ?#=&%$+-_.!ü"
PASSWORDS = st.text(SIGNS, min_size=1, max_size=20).map(lambda text: f"{text}geheim9")


@settings(max_examples=50)
@given(PASSWORDS)
def test_the_storages_password_is_hidden_whatever_its_letters(password: str) -> None:
    address = f"postgresql+psycopg://lab:{password}@db.example:5432/optuna"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors, "_given", {})
        hide_storage(OmegaConf.create({"sweeper": {"storage": address}}))
        word = f"hydra.sweeper.storage={address}"
        for text in (
            address, f"study s1: {address}, 4 trials", json.dumps({"a": [word]}),
            OmegaConf.to_yaml(OmegaConf.create({"a": address})).replace("\n  ", " "), shlex.quote(word),
            f"hydra.sweeper.storage='{address.replace(chr(39), chr(92) + chr(39))}'",
        ):  # fmt: skip
            left = redact(text)
            assert "geheim9" not in left, (text, left)
            assert "lab:" in left and "db.example:5432/optuna" in left


@settings(max_examples=50)
@given(PASSWORDS.filter(lambda text: "://" not in text and not PORT.match(text)))
def test_an_address_within_a_word_is_hidden_too(password: str) -> None:
    word = "tags=" + json.dumps([f"https://lab:{password}@h/x", "a@b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors, "_given", {})
        hide_passwords(word)
        assert "geheim9" not in redact(word)


@pytest.mark.parametrize("word", ["tags=[http://:@host]", "tags=[http://lab:@host]"])
def test_where_there_is_no_password_nothing_else_is_hidden(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_given", {})
    hide_passwords(word)
    assert errors._given == {} and redact("a:@b, lab:@c") == "a:@b, lab:@c"


def test_a_word_of_many_signs_takes_no_time_and_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_given", {})
    hide_passwords(f"tags=[http://lab:x{'@' * 20_000}]")
    assert sum(map(len, errors._given)) < 10_000_000
    assert "x@" not in redact(f"http://lab:x{'@' * 20_000}")


def test_a_port_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_given", {})
    word = "tracker.uri=http://host:5000/models@v1"
    hide_passwords(word)
    assert redact(word) == word


@pytest.mark.parametrize("name", [
    "password", "sslpassword", "access_token", "token", "passphrase", "x-api-key", "api_key", "client_secret",
    "PASSWORD", "key", "db_pwd",
])  # fmt: skip
@pytest.mark.parametrize("before", ["https://h/x?", "https://h/x?a=1&", "https://h/x#", "mysql://h/x?a=1;"])
def test_a_password_in_a_query_is_hidden(before: str, name: str) -> None:
    assert redact(f"{before}{name}=geheim9&b=2") == f"{before}{name}={HIDDEN}&b=2"


def test_a_password_among_a_drivers_own_words_is_hidden() -> None:
    assert redact("password=geheim9 host=db") == f"password={HIDDEN} host=db"
    assert redact("host=db sslpassword=geheim9") == f"host=db sslpassword={HIDDEN}"


@pytest.mark.parametrize("word", [
    "optimizer.key=3", "tokenizer=wordpiece", "budget.tokens=5e6", "max_tokens=9", "token=[MASK]",
    "key=label",
    "https://h/x?max_tokens=9&tokenizer=bpe&monkey=1", "postgresql://lab@db/optuna", "sort=-validation",
])  # fmt: skip
def test_what_is_no_password_stays(word: str) -> None:
    assert redact(word) == word


@pytest.mark.parametrize("name", ["DB_PWD", "SITE_PASSPHRASE"])
def test_further_names_of_secrets_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "geheim99")
    assert "geheim99" in secrets()
