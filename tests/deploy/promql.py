"""Which series, labels and values an expression of PromQL names: enough of it to hold them to."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'[^']*')   # a string
      | (?P<range>\[[^\]]*\])                 # [5m], [$__rate_interval]
      | (?P<number>(?<![\w:])[0-9][0-9.a-z]*) # 0.99, 1h
      | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
      | (?P<mark>=~|!~|!=|==|>=|<=|\S)""",
    re.VERBOSE,
)
# What is followed by the names of labels in brackets.
_LABELLED = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _LABELLED | {"and", "or", "unless", "offset", "bool"}


@dataclass
class Named:
    """What an expression names.

    Attributes:
        series: the labels that each series is selected by, and the values of each label.
        grouped: labels by which anything is grouped or matched.
    """

    series: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def named_in(expression: str) -> Named:
    """Read an expression; alternatives of a regular expression are values one by one."""
    tokens = [(m.lastgroup or "", m[0]) for m in _TOKEN.finditer(expression)]
    named = Named()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        follows = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text in _LABELLED and follows == "(":
            end = _end(tokens, at + 1, ")")
            named.grouped.update(word for what, word in tokens[at + 2 : end] if what == "name")
            at = end
        elif kind == "name" and text not in _WORDS and follows not in {"(", "by", "without"}:
            selected = named.series.setdefault(text, {})
            if follows == "{":
                end = _end(tokens, at + 1, "}")
                for label, values in _selectors(tokens[at + 2 : end]):
                    selected.setdefault(label, set()).update(values)
                at = end
        at += 1
    return named


def all_named(expressions: Iterator[str] | list[str]) -> Named:
    """The same of many."""
    together: Mapping[str, dict[str, set[str]]] = defaultdict(dict)
    grouped: set[str] = set()
    for expression in expressions:
        one = named_in(expression)
        grouped |= one.grouped
        for name, labels in one.series.items():
            for label, values in labels.items():
                together[name].setdefault(label, set()).update(values)
            together[name]
    return Named(dict(together), grouped)


def _end(tokens: list[tuple[str, str]], since: int, mark: str) -> int:
    return next(at for at in range(since, len(tokens)) if tokens[at] == ("mark", mark))


def _selectors(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, set[str]]]:
    for at, (kind, label) in enumerate(tokens):
        if kind == "name":
            yield label, set(tokens[at + 2][1][1:-1].split("|"))
