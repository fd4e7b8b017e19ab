"""No part of a password is shown, at any place in a URL and with any characters."""

import importlib
import logging
import random
import sys
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy

from custom_aesthetic.base.database_urls import scrubbed, shown_url
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.storage import open_storage
from custom_aesthetic.settings.arguments import parse_arguments, shown_argument, shown_lines
from custom_aesthetic.settings.training import TrainingArguments

LETTERS = "QXZ"
"""Parts of the passwords; nothing else in the URLs contains them."""

SHAPES = (
    *("postgresql://me:{}@host:5432/db", "postgresql+psycopg2://me:{}@host/db?application_name=p", "mysql://me:{}@h/d"),
    *("grpc://me:{}@host:1", "redis://:{}@host", "postgresql://me:{}@[::1]:1/db", "postgresql://a/b:{}@host/db"),
    *("postgresql://host/db?user=me&password={}", "postgresql://host/db?PASSWD={}&user=me", "mysql://h/d?token={}"),
    *("mysql://me:{0}@h/d?ssl_key={0}", "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D{}", "nonsense://me:{}@host"),
    *("postgresql://me:{}@host:port/db", "sqlite:///db?password={}", "postgresql://me:{}@"),
)


def passwords(n_passwords: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(LETTERS + "/@:%? '\"&=;#+\\", k=draw.randint(1, 12))) for _ in range(n_passwords)]


def shows_part(text: str) -> bool:
    return any(letter in text for letter in LETTERS)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_part_of_a_password_is_shown(shape: str) -> None:
    for password in passwords(300):
        for written in (password, quote(password, safe=""), quote_plus(password)):
            url = shape.format(written)
            assert not shows_part(shown_url(url)), url
            assert not shows_part(shown_argument(f"--database={url}")), url


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.startswith(("grpc", "sqlite"))])
def test_no_part_of_a_password_is_in_the_message_about_a_database_that_cannot_be_opened(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, **_: object) -> None:
        host = sqlalchemy.make_url(url).host
        raise sqlalchemy.exc.OperationalError("", {}, Exception(f'could not find "{host}" of {url!s}'))

    monkeypatch.setattr("custom_aesthetic.search.storage.RDBStorage", refuse)
    monkeypatch.setattr("custom_aesthetic.search.storage.callback_option", lambda: "callback")
    opened: set[str] = set()  # the URLs of one process, which its messages are cleared of: here each is the first
    monkeypatch.setattr("custom_aesthetic.search.storage._opened", opened)
    for password in passwords(100):
        for written in (password, quote(password, safe="")):
            opened.clear()
            with pytest.raises(UserError) as error:
                open_storage(shape.format(written))
            assert not shows_part(str(error.value)), shape.format(written)


def test_other_parts_of_a_url_are_shown() -> None:
    assert shown_url("") == ""
    assert shown_url("my journal@home: a=b?password=c") == "my journal@home: a=b?password=c"
    assert shown_url("sqlite:///db.sqlite") == "sqlite:///db.sqlite"
    assert shown_url("sqlite:////home/me@work/db.sqlite") == "sqlite://***@work/db.sqlite"
    assert shown_url("postgresql://me:pw@host:1/db?sslmode=require") == "postgresql://me:***@host:1/db?sslmode=require"
    assert shown_url("postgresql://host/db?user=me&password=pw") == "postgresql://host/db?user=me&password=***"


def test_passwords_are_removed_from_messages_of_drivers() -> None:
    url = "postgresql://me:hush%40hush@host/db"
    assert scrubbed("no user me with hush@hush on host", url) == "no user me with *** on host"
    assert "password" in scrubbed("connection refused", "postgresql://me:o@host/db")
    assert scrubbed("disk full", "sqlite:///db.sqlite") == "disk full"


def test_the_arguments_stored_with_a_study_contain_no_password() -> None:
    assert not [line for line in shown_lines(parsed("--database=mysql://me:Q@Z/X@host/d")) if shows_part(line)]


def test_unknown_arguments_are_shown_without_passwords() -> None:
    with pytest.raises(UserError) as error:
        parsed("--databse=postgresql://me:QXZ@host/db")
    assert not shows_part(str(error.value))
    _, ignored = parse_arguments(
        TrainingArguments, ["-d=x", "--db", "postgresql://me:QXZ@host/db"], description="", ignore_unknown=True
    )
    assert not shows_part(" ".join(ignored))


def parsed(argument: str) -> TrainingArguments:
    return parse_arguments(TrainingArguments, ["-d=x", argument], description="")[0]


SCRIPTS = ("predictor_training", "data_analysis", "spotlight", "ab_scorer", "scorer")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--databse={}"],
        ["--databse", "{}"],
        ["--databse={}?password=QXZ"],
        ["{}"],
        ["--offline={}"],
        ["--device={}", "--port={}", "--trials={}"],
    ],
)
def test_no_script_prints_the_password_of_a_mistyped_option(
    name: str, arguments: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    script = importlib.import_module(f"aesthetic_{name}")
    url = "postgresql://me:QXZQXZ@host/db"
    with pytest.raises(UserError) as raised:
        script.run(["-d=nowhere", "-m=model.safetensors", *(argument.format(url) for argument in arguments)])
    assert not shows_part(f"{caplog.text} {raised.value}")


def test_without_sqlalchemy_as_for_labelling_alone_all_before_the_host_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy.engine", None)
    assert shown_url("postgresql://me:QXZ@host/db") == "postgresql://***@host/db"
    assert shown_url("sqlite:///db.sqlite") == "sqlite:///db.sqlite"
