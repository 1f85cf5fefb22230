import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tinkex_proxy.config import ConfigError, Settings

WriteToml = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "TINKER_API_KEY",
        "TINKER_BASE_URL",
        "TINKEX_PROXY_CONFIG",
        "TINKEX_PROXY_STATE_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write_toml(tmp_path: Path) -> WriteToml:
    def write(text: str) -> Path:
        path = tmp_path / "proxy.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return write


def problems_of(**arguments: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(**arguments)  # type: ignore[arg-type]
    return caught.value.problems


def test_each_layer_beats_the_weaker_ones(
    write_toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option > environment > file > default, setting by setting."""
    path = write_toml("[server]\nport = 1\nhost = 'localhost'\n[log]\nlevel = 'debug'\n")
    monkeypatch.setenv("TINKEX_PROXY_SERVER__PORT", "2")
    monkeypatch.setenv("TINKEX_PROXY_LOG__LEVEL", "error")
    loaded = Settings.load({"server.port": "3"}, path)
    assert loaded.server.port == 3
    assert loaded.log.level == "error"
    assert loaded.server.host == "localhost"
    assert loaded.server.max_body_bytes == 67_108_864


def test_the_file_can_be_named_by_a_variable(
    write_toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_CONFIG", str(write_toml("[server]\nport = 77\n")))
    assert Settings.load().server.port == 77


def test_the_state_folder_has_a_short_variable_below_its_own(
    write_toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option > the setting's variable > the short one > file."""
    path = write_toml("[journal]\nstate_dir = '/of/the/file'\n")

    def chosen(**options: str) -> str:
        named = {f"journal.{name}": value for name, value in options.items()}
        return str(Settings.load(named, path).journal.state_dir)

    assert chosen() == "/of/the/file"
    monkeypatch.setenv("TINKEX_PROXY_STATE_DIR", "/short")
    assert chosen() == "/short"
    monkeypatch.setenv("TINKEX_PROXY_JOURNAL__STATE_DIR", "/long")
    assert chosen() == "/long"
    assert chosen(state_dir="/option") == "/option"


def test_without_a_state_folder_it_is_left_to_the_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings.load().journal.state_dir is None
    monkeypatch.setenv("TINKEX_PROXY_STATE_DIR", "")
    assert Settings.load().journal.state_dir is None


def test_plain_settings_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Settings()` is the defaults, whatever the environment holds."""
    monkeypatch.setenv("TINKEX_PROXY_SERVER__PORT", "2")
    assert Settings().server.port == 8465


def test_settings_cannot_be_changed() -> None:
    loaded = Settings.load()
    with pytest.raises(ValidationError):
        loaded.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("server.prot", "server.port"),
        ("batching.window", "batching.window_ms"),
        ("base_url", "upstream.base_url"),
        ("circuit_breaker.treshold", "circuit_breaker.failure_threshold"),
        ("calls.enabled", "batching.enabled"),
    ],
)
def test_an_unknown_option_names_the_nearest(key: str, known: str) -> None:
    (problem,) = problems_of(options={key: "1"})
    assert f"unknown option {key!r}" in problem
    assert known in problem or key == "calls.enabled"


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__BASEURL", "http://127.0.0.1:1")
    (problem,) = problems_of()
    assert "TINKEX_PROXY_UPSTREAM__BASEURL" in problem
    assert "upstream.base_url" in problem


def test_something_quite_unknown_lists_the_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKEX_PROXY_XYZZY", "1")
    (problem,) = problems_of()
    assert "server, upstream, circuit_breaker" in problem


def test_an_unknown_name_in_the_file_says_which_file(write_toml: WriteToml) -> None:
    """Every problem of a file comes at once."""
    path = write_toml("port = 1\n[server]\nprot = 1\n[batch]\nwindow_ms = 1\n")
    text = "\n".join(problems_of(config_file=path))
    assert f"unknown name server.prot in {path}; the nearest known setting is server.port" in text
    assert "unknown name port" in text
    assert "unknown name batch " in text


def test_a_section_of_the_file_must_be_a_table(write_toml: WriteToml) -> None:
    (problem,) = problems_of(config_file=write_toml("server = 1\n"))
    assert "must be a table: [server]" in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TINKEX_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("TINKEX_PROXY_SERVICE_PORT_HTTP", "8465"),
        ("TINKEX_PROXY_PORT", "tcp://10.0.0.1:8465"),
        ("TINKEX_PROXY_PORT_8465_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_puts_there_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A service called tinkex-proxy must not keep the proxy from starting."""
    monkeypatch.setenv(name, value)
    assert Settings.load() == Settings()


def test_a_users_port_variable_is_not_taken_for_kubernetes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_PORT", "9000")
    (problem,) = problems_of()
    assert "server.port" in problem


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose writes `${NAME:-}` for a variable the user left out."""
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "")
    monkeypatch.setenv("TINKEX_PROXY_SERVER__PORT", "")
    assert Settings.load() == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a,b", ("a", "b")), ('["a", "b"]', ("a", "b")), ("a", ("a",)), (" ", ())],
)
def test_lists_are_written_with_commas(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_SERVER__ALLOWED_HOSTS", text)
    assert Settings.load().server.allowed_hosts == expected


def test_a_bad_value_says_where_it_was_set_and_what_it_is(
    write_toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_SERVER__PORT", "many")
    path = write_toml("[log]\nlevel = 'loud'\n")
    text = "\n".join(problems_of(options={"upstream.flavour": "sweet"}, config_file=path))
    assert "server.port (from TINKEX_PROXY_SERVER__PORT)" in text
    assert "got 'many'" in text
    assert f"log.level (from {path})" in text
    assert "upstream.flavour (from --upstream.flavour)" in text


@pytest.mark.parametrize("content", [b"[server\n", b"\xff"])
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "proxy.toml"
    path.write_bytes(content)
    (problem,) = problems_of(config_file=path)
    assert "is not TOML" in problem


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    (problem,) = problems_of(config_file=tmp_path / "none.toml")
    assert "No such file" in problem


def test_the_key_falls_back_to_the_sdks_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-general")
    key = Settings.load().upstream.api_key
    assert key is not None
    assert key.get_secret_value() == "tml-general"
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-own")
    key = Settings.load().upstream.api_key
    assert key is not None
    assert key.get_secret_value() == "tml-own"


def test_the_sdks_base_url_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users point their SDK at us with it; obeying it would make us call ourselves."""
    monkeypatch.setenv("TINKER_BASE_URL", "http://localhost:8465")
    assert Settings.load() == Settings()


def test_the_hosted_service_wants_its_own_kind_of_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "sk-canary")
    (problem,) = problems_of()
    assert "TINKER_API_KEY" in problem
    assert "'tml-'" in problem
    assert "canary" not in problem
    elsewhere = Settings.load({"upstream.base_url": "http://127.0.0.1:8000"})
    assert elsewhere.upstream.api_key is not None


@pytest.mark.parametrize("key", ["tml-canary\nX-Evil: 1", "tml canary", "tml-canáry"])
def test_a_key_that_would_break_a_header_is_refused_unshown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", key)
    (problem,) = problems_of()
    assert "printable ASCII" in problem
    assert "can" not in problem.replace("cannot", "")


def test_a_key_of_the_wrong_type_is_not_shown(write_toml: WriteToml) -> None:
    (problem,) = problems_of(config_file=write_toml("[upstream]\napi_key = 4711\n"))
    assert "upstream.api_key" in problem
    assert "4711" not in problem


@pytest.mark.parametrize(("mode", "allowed"), [(0o600, True), (0o640, False), (0o604, False)])
def test_a_file_with_a_key_is_its_owners_alone(
    write_toml: WriteToml, mode: int, *, allowed: bool
) -> None:
    path = write_toml("[upstream]\napi_key = 'tml-canary'\n")
    path.chmod(mode)
    if allowed:
        assert Settings.load(config_file=path).upstream.api_key is not None
        return
    (problem,) = problems_of(config_file=path)
    assert f"chmod 600 {path}" in problem
    assert "canary" not in problem


def test_a_file_without_a_key_may_be_read_by_all(write_toml: WriteToml) -> None:
    path = write_toml("[server]\nport = 1\n")
    path.chmod(0o644)
    assert Settings.load(config_file=path).server.port == 1


def test_a_secret_shows_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-canary")
    loaded = Settings.load()
    assert "canary" not in repr(loaded) + str(loaded) + loaded.model_dump_json()
    assert pickle.loads(pickle.dumps(loaded)) == loaded  # noqa: S301 - our own bytes
