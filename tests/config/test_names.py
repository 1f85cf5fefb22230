import pytest

from tinkex_proxy.config import Settings
from tinkex_proxy.config.names import all_settings, nearest

SETTINGS = list(all_settings())


def test_every_section_is_part_of_the_settings() -> None:
    """The walk over the sections and the settings themselves know the same names."""
    fields = {name: field.annotation for name, field in Settings.model_fields.items()}
    walked: dict[str, set[str]] = {}
    for setting in SETTINGS:
        walked.setdefault(setting.section, set()).add(setting.name)
    assert walked == {name: set(model.model_fields) for name, model in fields.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.key)
def test_every_setting_is_described_in_one_table_row(setting) -> None:
    description = setting.field.description
    assert description.endswith((".", "`"))
    assert "|" not in description
    assert "\n" not in description


def test_a_setting_has_one_name_in_three_spellings() -> None:
    setting = next(s for s in SETTINGS if s.key == "server.max_body_bytes")
    assert setting.option == "--server.max-body-bytes"
    assert setting.variable == "TINKEX_PROXY_SERVER__MAX_BODY_BYTES"


def test_only_keys_are_secret() -> None:
    assert [s.key for s in SETTINGS if s.secret] == [
        "upstream.api_key",
        "tracing.headers",
    ]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("server.uds", ""),
        ("server.host", '"127.0.0.1"'),
        ("server.port", "8465"),
        ("metrics.enabled", "true"),
        ("batching.preferred_sizes", "[]"),
    ],
)
def test_defaults_are_written_as_in_a_file(key: str, text: str) -> None:
    assert next(s for s in SETTINGS if s.key == key).default == text


def test_the_right_section_wins_among_equal_names() -> None:
    assert "batching.enabled" in nearest("batching.enable")
    assert "metrics.enabled" in nearest("metrics.enable")
