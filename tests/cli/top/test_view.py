from tests.cli.telling import lane, telling
from tinkex_proxy.cli.top.view import ORDERS, View, pressed, shown

LANES = telling(
    lanes=[
        lane("b", depth=1, awaiting_results=3, calls=9, oldest_wait_s=0.5),
        lane("a", depth=2, held_back=3, calls=1),
        lane("C", awaiting_results=1, calls=5, oldest_wait_s=4.0),
    ]
).lanes


def after(*keys: str, lanes: int = 3) -> View:
    view = View()
    for key in keys:
        view = pressed(view, key, lanes=lanes)
    return view


def names(view: View) -> str:
    return "".join(one.model_id for one in shown(view, LANES))


def test_each_order_has_the_most_first_and_names_as_names_go() -> None:
    assert {order: names(View(order=order)) for order in ORDERS} == {
        "name": "Cab",
        "waiting": "abC",
        "oldest": "Cba",
        "in flight": "bCa",
        "calls": "bCa",
    }


def test_s_goes_round_the_orders_and_r_turns_the_one_there_is() -> None:
    assert after("s").order == "waiting"
    assert after(*"sssss").order == "name"
    assert names(after("s", "r")) == "Cba"
    assert after("s", "r", "s").turned is False


def test_a_filter_is_typed_and_kept_or_dropped() -> None:
    view = after("/", "q", "B", "backspace", "backspace", "B")
    assert (view.typing, view.wanted, names(view)) == (True, "B", "b")
    kept = pressed(view, "enter", lanes=1)
    assert (kept.typing, kept.wanted) == (False, "B")
    assert pressed(kept, "escape", lanes=1).wanted == ""
    dropped = pressed(view, "escape", lanes=1)
    assert (dropped.typing, dropped.wanted) == (False, "")


def test_keys_that_are_no_text_do_not_get_into_the_filter() -> None:
    assert after("/", "up", "\x01").wanted == ""
    assert len(after("/", *"x" * 100).wanted) == 40


def test_lanes_are_gone_through_and_not_left() -> None:
    assert after("up").first == 0
    assert after("down", "down", "down", "down").first == 2
    assert after("down", "down", "up").first == 1
    assert after("down", lanes=0).first == 0
    assert after("down", "s").first == 0


def test_pausing_ending_and_keys_that_mean_nothing() -> None:
    assert after("p").paused
    assert after(" ").paused
    assert not after("p", "p").paused
    assert after("q").over
    assert after("x", "enter", "backspace") == View()
