from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from m3rag.errors import ConfigurationError
from m3rag.settings import load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that no setting of this machine counts."""
    (tmp_path / ".git").mkdir()
    work = tmp_path / "sub"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_order_of_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().top_k == 10
    users = folder / "config" / "m3rag"
    users.mkdir(parents=True)
    (users / "m3rag.toml").write_text("top_k = 1\n")
    assert load_settings().top_k == 1
    (folder / "m3rag.toml").write_text("top_k = 2\n[llm]\nmodel = 'from-file'\n")
    assert load_settings().top_k == 2
    Path(".env").write_text("M3RAG_TOP_K=3\n")
    assert load_settings().top_k == 3
    monkeypatch.setenv("M3RAG_TOP_K", "4")
    monkeypatch.setenv("M3RAG_LLM__BASE_URL", "http://localhost:1")
    settings = load_settings()
    assert (settings.top_k, settings.llm.model, settings.llm.base_url) == (4, "from-file", "http://localhost:1")
    assert load_settings(top_k=5, mode=None).top_k == 5


def test_the_search_for_a_file_ends_at_the_repository(folder: Path) -> None:
    (folder / "sub" / ".git").mkdir()
    (folder / "m3rag.toml").write_text("top_k = 2\n")
    assert load_settings().top_k == 10


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("docs.index", "{folder}/docs.index"),
        ("../docs.index", "{folder}/../docs.index"),
        ("/srv/docs.index", "/srv/docs.index"),
        ("~/docs.index", "~/docs.index"),
        (":memory:", ":memory:"),
        ("http://localhost:6333/docs", "http://localhost:6333/docs"),
        ("chroma:docs?collection=a/b", "chroma:{folder}/docs?collection=a/b"),
        ("chroma:?collection=a", "chroma:?collection=a"),
        ("chroma+http://localhost:8000/docs?side=a%26b", "chroma+http://localhost:8000/docs?side={folder}/a%26b"),
        ("chroma+http://localhost:8000/docs?side=/srv/s", "chroma+http://localhost:8000/docs?side=/srv/s"),
        ("", ""),
        ("  ", "  "),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_a_file_means_the_same_index_from_every_folder(
    folder: Path, said: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "m3rag.toml").write_text(f"index = {said!r}\n")
    assert load_settings().index == meant.format(folder=folder)
    monkeypatch.chdir(folder)
    assert load_settings().index == said
    monkeypatch.chdir(folder / "sub")
    monkeypatch.setenv("M3RAG_INDEX", "here")
    assert load_settings().index == "here"


def test_what_a_person_has_set_is_of_each_project(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "m3rag.toml").write_text("index = '.m3rag'\n")
    monkeypatch.setattr("m3rag.settings.user_config_path", lambda *_, **__: tmp_path / "config")
    monkeypatch.chdir(folder / "sub")
    assert load_settings().index == ".m3rag"


def test_other_paths_of_a_file_are_meant_from_its_folder(folder: Path) -> None:
    for name in ("mini", "my-model", "colbert"):
        (folder / name).mkdir()
    (folder / "llm.gguf").touch()
    (folder / "m3rag.toml").write_text(
        "model = 'my-model'\nreranker = 'colbert'\n[llm]\nmodel = 'llm.gguf'\n[serve]\ndata = 'uploads'\n"
    )
    settings = load_settings()
    assert (settings.model, settings.reranker) == (str(folder / "my-model"), "colbert")
    assert settings.llm.model == str(folder / "llm.gguf")
    assert settings.serve.data == folder / "uploads"
    (folder / "llama3.2").mkdir()
    (folder / "m3rag.toml").write_text("model = 'mini'\nreranker = 'BAAI/bge-m3'\n[llm]\nmodel = 'llama3.2'\n")
    settings = load_settings()
    assert (settings.model, settings.reranker, settings.llm.model) == ("mini", "BAAI/bge-m3", "llama3.2")


def test_unknown_settings_get_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m3rag.toml").write_text("chunk_token = 3\n")
    with pytest.raises(
        ConfigurationError, match=r"unknown setting chunk_token \(set in .*m3rag\.toml\): did you mean chunk_tokens"
    ):
        load_settings()
    Path("m3rag.toml").write_text("[llm]\nmodle = 'x'\n")
    with pytest.raises(
        ConfigurationError, match=r"unknown setting llm\.modle \(set in .*m3rag\.toml\): did you mean llm\.model"
    ):
        load_settings()
    Path("m3rag.toml").unlink()
    Path(".env").write_text("M3RAG_TOPK=3\n")
    with pytest.raises(ConfigurationError, match=r"unknown setting topk \(set in .*\.env\): did you mean top_k"):
        load_settings()


@pytest.mark.parametrize("name", ["m3rag.toml", ".env"])
def test_a_file_that_is_not_in_utf8_is_named(name: str) -> None:
    Path(name).write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=rf"{name} cannot be read: 'utf-8' codec"):
        load_settings()


def test_what_belongs_to_others_in_env_files_is_ignored() -> None:
    Path(".env").write_text("OPENAI_API_KEY=secret\nM3RAG_TOP_K=3\n")
    assert load_settings().top_k == 3


def test_malformed_values_and_files_are_named() -> None:
    Path("m3rag.toml").write_text("top_k = 'many'\n")
    with pytest.raises(ConfigurationError, match=r"setting top_k: .* got 'many'"):
        load_settings()
    Path("m3rag.toml").write_text("top_k = = 2\n")
    with pytest.raises(ConfigurationError, match=r"m3rag\.toml cannot be read"):
        load_settings()


def test_a_byte_order_mark_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m3rag.toml").write_bytes(b"\xef\xbb\xbftop_k = 1\r\n")
    with pytest.raises(ConfigurationError, match=r"begins with a byte order mark.*save it as UTF-8 without"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mode", "foo", "setting mode: unknown mode 'foo': choose one of dense, "),
        ("weights", "bar", "setting weights: unknown weights 'bar': give dense/lexical/colbert such as 1/0.3/1"),
        ("weights", "0/0/0", "setting weights: weights must be finite"),
        ("top_k", str(10**20), "setting top_k: .*less than or equal to 2147483647"),
    ],
)
def test_a_value_that_no_search_takes_is_refused_with_its_source(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("m3rag.toml").write_text(f"{name} = {value!r}\n")
    with pytest.raises(ConfigurationError, match=rf"^{message}.* \(set in .*sub.m3rag\.toml\)$"):
        load_settings()
    monkeypatch.setenv(f"M3RAG_{name.upper()}", value)
    for given in ({}, {name: value}):  # a command's option reads the variable itself
        with pytest.raises(ConfigurationError, match=rf"^{message}.* \(set in M3RAG_{name.upper()}\)$"):
            load_settings(**given)
    monkeypatch.delenv(f"M3RAG_{name.upper()}")
    with pytest.raises(ConfigurationError, match=f"^{message}") as told:
        load_settings(**{name: value})
    assert "(set in" not in str(told.value), "a caller knows what it gave"


def test_a_nested_value_that_a_caller_gives_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^setting serve\.max_upload_mb: .* got 0$"):
        load_settings(serve={"max_upload_mb": 0})


@pytest.mark.parametrize(("mode", "weights"), [("dense+bm25", "mldr"), ("colbert", "1/0.3/1"), ("all", "0/1/0")])
def test_modes_and_weights_that_there_are(mode: str, weights: str) -> None:
    Path("m3rag.toml").write_text(f"mode = {mode!r}\nweights = {weights!r}\n")
    assert (load_settings().mode, load_settings().weights) == (mode, weights)


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_LLM__API_KEY", "sk-secret")
    settings = load_settings()
    assert settings.llm.api_key is not None
    assert settings.llm.api_key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in f"{settings!r} {settings}"


def test_settings_that_may_not_be_looked_for_name_the_remedy(folder: Path, shut: Callable[[Path], None]) -> None:
    shut(folder / "config")  # such as the home of who called sudo
    with pytest.raises(ConfigurationError, match=r"looked for \(.*Permission denied.*HOME \(or XDG_CONFIG_HOME\)"):
        load_settings()


@pytest.mark.skipif(sys.platform == "win32", reason="there a folder in use cannot be removed")
def test_a_working_folder_that_is_gone(folder: Path) -> None:
    (folder / "sub").rmdir()
    with pytest.raises(ConfigurationError, match="run m3rag in a folder that is there"):
        load_settings()


@pytest.mark.parametrize(
    ("said", "found"), [("a.example", ("a.example",)), ("a, b,", ("a", "b")), ('["a", "b"]', ("a", "b")), (" ", ())]
)
def test_hosts_of_a_variable(said: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_SERVE__ALLOWED_HOSTS", said)
    assert load_settings().serve.allowed_hosts == found


def test_a_proxy_is_an_address_or_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_SERVE__TRUSTED_PROXIES", "127.0.0.1, 172.16.0.0/12,fd00::/8")
    assert load_settings().serve.trusted_proxies == ("127.0.0.1", "172.16.0.0/12", "fd00::/8")
    for said in ("*", "proxy.example", "10.0.0.1/8"):
        monkeypatch.setenv("M3RAG_SERVE__TRUSTED_PROXIES", said)
        with pytest.raises(ConfigurationError, match=r"serve\.trusted_proxies: .*such as 172.*TRUSTED_PROXIES"):
            load_settings()


def test_a_group_that_is_set_as_if_it_were_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_LLM", "llama3.2")
    with pytest.raises(ConfigurationError, match=r"^M3RAG_LLM is no JSON object: .* M3RAG_LLM__MODEL, M3RAG_LLM__BASE"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "said"),
    [("MAX_FILE_MB", "inf"), ("SERVE__MAX_UPLOAD_MB", "inf"), ("ANSWER_THRESHOLD", "nan"), ("BATCH_TOKENS", "9" * 20)],
)
def test_numbers_that_nothing_can_be_counted_by(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"M3RAG_{name}", said)
    with pytest.raises(ConfigurationError, match=rf"(finite|less than).*set in M3RAG_{name}"):
        load_settings()
