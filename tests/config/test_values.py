import pytest
from pydantic import ValidationError

from tinkex_proxy.config import ConfigError, Settings
from tinkex_proxy.config.sections import BatchingSettings, ServerSettings, UpstreamSettings


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("tinker.example", "http:// or https://"),
        ("ftp://tinker.example", "http:// or https://"),
        ("http://", "with a host"),
        ("http://[::1", "is not a URL"),
        ("http://h:99999", "is not a URL"),
        ("http://tml-canary@h", "credentials"),
        ("http://:tml-canary@h", "credentials"),
        ("http://h/?key=1", "query"),
        ("http://h/#a", "fragment"),
    ],
)
def test_an_upstream_must_be_a_plain_http_url(url: str, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        UpstreamSettings(base_url=url)


def test_a_trailing_slash_of_the_upstream_is_dropped() -> None:
    """Paths are appended to it."""
    assert UpstreamSettings(base_url="http://h:1/a/").base_url == "http://h:1/a"


@pytest.mark.parametrize("host", ["", "*", "http://a", "a b", "a/b"])
def test_what_cannot_be_bound_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="host name or an IP address"):
        ServerSettings(host=host)


def test_an_ipv6_address_may_come_in_brackets() -> None:
    assert ServerSettings(host="[::1]").host == "::1"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("*", "no patterns"), ("http://a", "alone"), ("a:80", "alone"), ("a.", "alone")],
)
def test_an_allowed_host_is_a_name_alone(name: str, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ServerSettings(allowed_hosts=(name,))


def test_allowed_hosts_are_compared_in_lower_case() -> None:
    assert ServerSettings(allowed_hosts=("Proxy.Local",)).allowed_hosts == ("proxy.local",)


@pytest.mark.parametrize("text", ["8,16", "[8, 16]"])
def test_sizes_are_numbers(text: str) -> None:
    sizes = BatchingSettings.model_validate({"preferred_sizes": text}).preferred_sizes
    assert sizes == (8, 16)


@pytest.mark.parametrize("text", ["0", "8,x"])
def test_sizes_that_are_not_counts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        BatchingSettings.model_validate({"preferred_sizes": text})


def test_infinity_is_no_duration() -> None:
    with pytest.raises(ValidationError):
        UpstreamSettings(poll_timeout_s=float("inf"))


@pytest.mark.parametrize("text", ["word", "=word", "a b=c", "a=", "a=b,", "a=b c", "", "a:b=c"])
def test_headers_are_pairs_and_what_is_wrong_with_them_does_not_show(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_TRACING__HEADERS", text or ",")
    with pytest.raises(ConfigError) as refused:
        Settings.load({})
    assert "word" not in str(refused.value)


def test_headers_may_be_several(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "authorization=Bearer%20x,x-team=a=b"
    monkeypatch.setenv("TINKEX_PROXY_TRACING__HEADERS", text)
    headers = Settings.load({}).tracing.headers
    assert headers is not None
    assert headers.get_secret_value() == text
    assert text not in repr(headers)
