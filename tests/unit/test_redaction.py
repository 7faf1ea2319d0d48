"""What leaves this process holds no password, and is otherwise what it was."""

import pytest

from bertlab.errors import HIDDEN, redact, secrets


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
