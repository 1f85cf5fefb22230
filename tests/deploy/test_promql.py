"""What holds expressions to the code has to see what they name."""

from tests.deploy.promql import all_named, named_in


def test_series_and_what_they_are_selected_by() -> None:
    named = named_in('sum(rate(a_total{b="c", d!~"e|f"}[5m])) / a_total > 0.5')
    assert named.series == {"a_total": {"b": {"c"}, "d": {"e", "f"}}}


def test_labels_of_groups_and_matches_are_no_series() -> None:
    named = named_in(
        "histogram_quantile(0.99, sum by (le, op) (a_bucket{})) > on (op) group_left (v) b"
        " offset 1h and ignoring (x) c unless on () d"
    )
    assert named.series == {"a_bucket": {}, "b": {}, "c": {}, "d": {}}
    assert named.grouped == {"le", "op", "v", "x"}


def test_numbers_and_grafana_variables_are_no_series() -> None:
    named = named_in('75 * 60 + 0 * rate(a:b{c=~"$c"}[$__rate_interval]) >= 1e3')
    assert named.series == {"a:b": {"c": {"$c"}}}


def test_many_are_gathered() -> None:
    named = all_named(['a{b="c"}', 'sum by (x) (a{b="d"})', "e"])
    assert named.series == {"a": {"b": {"c", "d"}}, "e": {}}
    assert named.grouped == {"x"}
