"""Settings: from the command line, the environment, `.env`, `m3rag.toml`, then the defaults below."""

from __future__ import annotations

import codecs
import ipaddress
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote_plus

from platformdirs import user_config_path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from m3rag.errors import ConfigurationError
from m3rag.types import MOST

FILE_NAME = "m3rag.toml"

PREFIX = "M3RAG_"


def _mode(value: str) -> str:
    from m3rag.retrieval.mode import Mode  # noqa: PLC0415  # nobody should wait for numpy who sets no mode

    return _parsed(value, Mode.parse)


def _weights(value: str) -> str:
    from m3rag.scoring import Weights  # noqa: PLC0415  # as above

    return _parsed(value, Weights.parse)


def _parsed(value: str, parse: Callable[[str], object]) -> str:
    try:
        parse(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error  # which pydantic tells with those of other settings
    return value


def _listed(value: Any) -> Any:
    """Names of a variable: `a.example, b.example`, or a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(name for part in value.split(",") if (name := part.strip()))


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise ValueError(f"{error}: name addresses or networks, such as 172.16.0.0/12") from error
    return value


class LLMSettings(BaseModel):
    """Which language model writes answers; without `model`, answers are quoted sentences.

    Attributes:
        model: As the server names it, such as `gpt-5-mini` or `llama3.2`; or, without `base_url`, the path of
            a GGUF file, which runs on this machine (extra `local`).
        base_url: Of any server that speaks OpenAI's protocol; if not set, `OPENAI_BASE_URL`, else OpenAI's own.
        api_key: Never shown; if not set, `OPENAI_API_KEY`. A server on this machine needs none.
        timeout: Seconds, > 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False, description="seconds")

    @property
    def local(self) -> bool:
        """Whether the model is a GGUF file of this machine."""
        return self.model is not None and self.base_url is None and self.model.casefold().endswith(".gguf")


class ServeSettings(BaseModel):
    """How `m3rag serve` may be reached, and what it takes.

    Attributes:
        host: Address to listen on. Any but this machine's own (`127.0.0.1`, `::1`, `localhost`) needs `api_key`.
        port: 0 takes a free one.
        api_key: What requests must bring, as `Authorization: Bearer` or `x-api-key`. Never shown.
        allowed_hosts: Names that this server is reached by, beside `localhost` and addresses, such as that of
            a proxy before it; in a variable with commas between them.
        trusted_proxies: Addresses and networks whose `X-Forwarded-For` says who asks; without them all that comes
            through a proxy counts as one client. Anybody in them can name any address as its own.
        max_upload_mb: Most megabytes of one upload.
        rate_limit: Most requests of one client in a minute; 0 for no limit.
        data: Folder of uploaded files and feedback; by default beside the index.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_networks)] = ()
    max_upload_mb: float = Field(default=100.0, gt=0, allow_inf_nan=False)
    rate_limit: int = Field(default=1200, ge=0, description="requests of one client in a minute; 0 for no limit")
    data: Path | None = Field(default=None, description="folder of uploads and feedback; by default beside the index")


class Settings(BaseSettings):
    """All settings of m3rag. `M3RAG_TOP_K=5` in the environment sets `top_k`, `M3RAG_LLM__MODEL` `llm.model`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    index: Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)] = Field(
        default="m3rag-index", description="a folder, http://HOST:6333/COLLECTION (Qdrant) or chroma:FOLDER"
    )
    index_api_key: SecretStr | None = Field(default=None, description="of a Qdrant server")
    model: str | None = Field(default=None, description="the index's own model, `mini` for a new index")
    device: str | None = None
    dtype: str | None = Field(default=None, description="`bfloat16` on CPUs with AMX; by default what suits the device")
    max_length: int | None = None
    batch_tokens: int | None = Field(default=None, ge=1, le=MOST)
    chunk_tokens: int = Field(default=256, ge=8)
    chunking: str = Field(
        default="structure",
        description="structure, fixed, sentence-window, small-to-big or semantic; options behind a colon",
    )
    late_chunking: bool = False
    overlap_tokens: int = Field(default=32, ge=0)
    max_file_mb: float = Field(default=200.0, gt=0, allow_inf_nan=False)
    reader: Literal["builtin", "docling"] = Field(
        default="builtin", description="docling for PDF, DOCX, PPTX and images, if the extra is installed"
    )
    top_k: int = Field(default=10, ge=1, le=MOST)
    mode: Annotated[str, AfterValidator(_mode)] = "all"
    weights: Annotated[str, AfterValidator(_weights)] = "miracl"
    codec: str | None = Field(
        default=None, description="of token vectors in a new index: float16, int8, int4, binary (no Qdrant server)"
    )
    reranker: str | None = Field(
        default=None, description="none, colbert or a cross-encoder; what `m3rag tune` found to help, if not set"
    )
    answer_threshold: float | None = Field(default=None, allow_inf_nan=False)
    answer_passages: int = Field(default=5, ge=1, le=MOST)
    llm: LLMSettings = LLMSettings()
    serve: ServeSettings = ServeSettings()

    @property
    def index_key(self) -> str | None:
        """The key of the index's server in plain text."""
        return self.index_api_key.get_secret_value() if self.index_api_key else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources, the first wins."""
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            # A .env belongs to the whole project: what is not ours in it is none of our business.
            ours = {k: v for k, v in dotenv_settings.env_vars.items() if k.startswith("m3rag_")}
            dotenv_settings.env_vars = ours
        found = find_file(Path.cwd())
        toml = (_File(settings_cls, found),) if found else ()
        return (init_settings, env_settings, dotenv_settings, *toml)


class _File(TomlConfigSettingsSource):
    """An `m3rag.toml`, which means the same from every folder that it holds in."""

    def __call__(self) -> dict[str, Any]:
        folder = Path(str(self.toml_file_path)).parent
        said = super().__call__()
        # In its own folder paths are shown as they were written; what a person has set for all projects is of each.
        return _placed(said, folder) if folder in Path.cwd().parents else said


def _placed(said: Mapping[str, Any], folder: Path, group: str = "") -> dict[str, Any]:
    """What a file in a folder says, with its paths from there."""
    placed = dict(said)
    for name, value in said.items():
        if isinstance(value, Mapping):
            placed[name] = _placed(value, folder, f"{name}.")
        elif isinstance(value, str) and (group + name) in PATHS:
            placed[name] = PATHS[group + name](value, folder)
    return placed


def _below(path: str, folder: Path) -> str:
    return str(folder / path) if path.strip() and not path.startswith("~") else path


def _index_below(index: str, folder: Path) -> str:
    # In all forms of `place_of`.
    if index.startswith("chroma:"):
        path, mark, options = index.removeprefix("chroma:").partition("?")
        return f"chroma:{_below(path, folder)}{mark}{options}"
    if index.startswith("chroma+"):
        return re.sub("(?<=[?&]side=)[^&#]+", lambda side: quote(_below(unquote_plus(side[0]), folder)), index)
    return index if index == ":memory:" or "://" in index else _below(index, folder)


def _file_below(model: str, folder: Path) -> str:
    # Any other is the name that a server knows it by.
    return _model_below(model, folder) if model.casefold().endswith(".gguf") else model


def _model_below(model: str, folder: Path) -> str:
    # Names of models look like paths: which it is, only the disk says.
    named = model in ("mini", "none", "colbert") or not os.path.exists(folder / model)
    return model if named else _below(model, folder)


PATHS: dict[str, Callable[[str, Path], str]] = {
    "index": _index_below,
    "model": _model_below,
    "reranker": _model_below,
    "llm.model": _file_below,
    "serve.data": _below,
}
"""Settings that are paths, or may be, and what makes them ones from a folder."""


def find_file(start: Path) -> Path | None:
    """The `m3rag.toml` that applies in a folder: here, in a parent up to the one with `.git`, or the user's."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
        if (folder / ".git").exists():
            break
    users = user_config_path("m3rag", appauthor=False) / FILE_NAME
    return users if users.is_file() else None


def load_settings(**overrides: Any) -> Settings:
    """Settings of this folder and environment; overrides that are None are left out.

    Raises:
        ConfigurationError: If a setting is unknown or malformed; it names the setting and where it was
            set, and, for an unknown one, the nearest that exists.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(e), overrides) for e in error.errors())) from error
    except OSError as error:
        raise ConfigurationError(
            f"the settings cannot be looked for ({error}): run m3rag in a folder that is there and that you may read, "
            "with HOME (or XDG_CONFIG_HOME) set to a folder of your own, or correct the permissions"
        ) from error
    except SettingsError as error:
        raise ConfigurationError(_no_json(str(error))) from error
    except ValueError as error:
        file = find_file(Path.cwd()) if type(error).__name__ == "TOMLDecodeError" else _not_unicode()
        marked = file is not None and file.read_bytes().startswith(codecs.BOM_UTF8)
        hint = (
            "; it begins with a byte order mark, which TOML does not have: save it as UTF-8 without" if marked else ""
        )
        raise ConfigurationError(f"{file or 'the settings'} cannot be read: {error}{hint}") from error


def _no_json(message: str) -> str:
    """What to set instead of a group of settings: pydantic-settings names the group alone, which takes JSON."""
    group = re.search('field "([^"]+)" from source "([^"]+)"', message)
    if group is None or group[1] not in Settings.model_fields:
        return f"the settings cannot be read: {message}"
    variable = variable_of(group[1])
    within = ", ".join(variable_of(name) for name in setting_names() if name.startswith(f"{group[1]}."))
    return f"{variable} is no JSON object: set what is meant by itself, as one of {within}"


def _not_unicode() -> Path | None:
    """The file that is not in UTF-8: pydantic-settings does not say which one it read."""
    for file in (Path(".env").resolve(), find_file(Path.cwd())):
        try:
            if file is not None and file.is_file():
                file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return file
    return None


def setting_names() -> list[str]:
    """All settings by name, those of a group behind a dot: `top_k`, `llm.model`."""
    return list(_names(Settings))


def _names(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def variable_of(setting: str) -> str:
    """The environment variable of a setting: `M3RAG_LLM__MODEL` of `llm.model`."""
    return PREFIX + setting.replace(".", "__").upper()


def origin_of(name: str, overrides: Mapping[str, Any]) -> str:
    """Where a setting was set: `command line`, the name of a variable, the path of a file, or `default`.

    Args:
        name: Such as `llm.model`.
        overrides: As for `load_settings`.
    """
    for origin, said in _sources(overrides):
        if _says(said, name.split(".")):
            return origin or variable_of(name)
    return "default"


def _sources(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What each source says, the first wins; without a name it is the environment."""
    yield "command line", {name: value for name, value in overrides.items() if value is not None}
    yield "", EnvSettingsSource(Settings)()
    if Path(".env").is_file():
        yield str(Path(".env").resolve()), DotEnvSettingsSource(Settings)()
    file = find_file(Path.cwd())
    if file is not None:
        yield str(file), TomlConfigSettingsSource(Settings, file)()


def _says(said: Any, path: list[str]) -> bool:
    for part in path:
        if isinstance(said, BaseModel):
            said = said.model_dump(exclude_unset=True)
        if not isinstance(said, Mapping) or part not in said:
            return False
        said = said[part]
    return True


def _explain(error: dict[str, Any], overrides: Mapping[str, Any]) -> str:
    said = ".".join(str(part) for part in error["loc"])
    name = said.removeprefix("m3rag_")
    if error["type"] != "extra_forbidden":
        ours = error["type"] == "value_error"  # such a message shows what it is about
        shown = "" if ours or "key" in name else f", got {error['input']!r}"
        return f"setting {name}: {error['msg'].removeprefix('Value error, ')}{shown}{_set_in(name, overrides)}"
    known = setting_names()
    near = get_close_matches(name, known, n=1)
    hint = f": did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    # Only of a .env file are the names of variables not cut to those of settings.
    where = _set_in(name, overrides) if said == name else f" (set in {Path('.env').resolve()})"
    return f"unknown setting {name}{where}{hint}"


def _set_in(name: str, overrides: Mapping[str, Any]) -> str:
    origin = origin_of(name, overrides)
    # Options of commands have variables too, and do not say from which of the two their value is.
    if origin == "command line" and os.environ.get(variable_of(name)) == str(overrides.get(name)):
        origin = variable_of(name)
    return "" if origin in ("command line", "default") else f" (set in {origin})"
