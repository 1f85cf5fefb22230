"""A plan of faults, read from JSON or, fault by fault, from a command line."""

from collections.abc import Mapping, Sequence

import msgspec

from tinkex_proxy.sandbox.faults import KINDS, BadFault, Fault

__all__ = ["Plan", "read_fault", "read_plan"]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is to go wrong.

    Attributes:
        faults: each is decided for itself; of two that would answer a request, the first does.
        seed: of the dice; the same seed hits the same ones of the requests that a fault is about.
    """

    faults: tuple[Fault, ...] = ()
    seed: int = 0


def read_plan(body: bytes) -> Plan:
    """A plan from JSON.

    Raises:
        BadFault: it is none.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
        faults = fields.get("faults", ())
        for number, one in enumerate(faults if isinstance(faults, Sequence) else ()):
            if isinstance(one, Mapping):
                _refuse_unknown(f"faults[{number}]: ", one)
        return msgspec.convert(fields, Plan)
    except msgspec.MsgspecError as error:
        raise BadFault(str(error)) from None


def read_fault(text: str) -> Fault:
    """A fault from a command line: `KIND` or `KIND:NAME=VALUE,NAME=VALUE`.

    Raises:
        BadFault: it is none.
    """
    kind, _, rest = text.partition(":")
    fields: dict[str, str] = {"kind": kind}
    for pair in rest.split(",") if rest else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadFault(f"{pair!r} is not NAME=VALUE")
        fields[name] = value
    _refuse_unknown("", fields)
    try:
        return msgspec.convert(fields, KINDS[kind], strict=False)
    except msgspec.ValidationError as error:
        raise BadFault(f"{kind}: {error}") from None


def _refuse_unknown(where: str, fields: Mapping[str, object]) -> None:
    """Name what could have been meant, which msgspec does not."""
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadFault(f"{where}kind is {kind!r}; it is one of {', '.join(KINDS)}")
    known = KINDS[kind].__struct_fields__
    for name in fields:
        if name != "kind" and name not in known:
            raise BadFault(f"{where}{kind} has no {name!r}; it has {', '.join(sorted(known))}")
