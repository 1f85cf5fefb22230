from tinkex_proxy.runtime.curves import MAX_MODELS, MAX_POINTS, Curves


def points(curves: Curves, after: int = 0) -> list[tuple[int, float, float]]:
    (curve,) = curves.told(after)
    return curve["points"]


def test_a_curve_is_its_losses_in_order() -> None:
    curves = Curves()
    curves.add("m", 3, 10.0, 2.5)
    curves.add("m", 4, 12.0, 2.25)
    assert curves.told() == [
        {
            "model_id": "m",
            "calls": 2,
            "whole": True,
            "points": [(3, 10.0, 2.5), (4, 12.0, 2.25)],
        }
    ]


def test_whoever_has_the_beginning_gets_what_is_new() -> None:
    curves = Curves()
    for slot in range(1, 6):
        curves.add("m", slot, slot * 2.0, 1.0)
    (curve,) = curves.told(4)
    assert (curve["whole"], [point[0] for point in curve["points"]]) == (False, [4, 5])


def test_a_full_curve_is_thinned_and_still_shows_the_whole_run() -> None:
    """Each point becomes the mean of two, those to come are means of as many, and all are told."""
    curves = Curves()
    for call in range(MAX_POINTS + 1):
        curves.add("m", call, float(call), float(call))
    (curve,) = curves.told(MAX_POINTS)
    assert curve["whole"]
    assert len(curve["points"]) == MAX_POINTS // 2
    assert curve["points"][0] == (1, 1.0, 0.5)
    # the odd one is half of the next point
    curves.add("m", 500, 500.0, MAX_POINTS + 2.0)
    assert points(curves)[-1] == (500, 500.0, MAX_POINTS + 1.0)
    assert curves.told(501)[0]["points"] == []


def test_a_curve_of_many_calls_stays_within_its_points() -> None:
    curves = Curves()
    for call in range(20 * MAX_POINTS):
        curves.add("m", call, float(call), 1.0)
    assert MAX_POINTS // 2 <= len(points(curves)) <= MAX_POINTS
    assert {loss for _, _, loss in points(curves)} == {1.0}


def test_the_models_that_trained_last_are_kept() -> None:
    curves = Curves()
    for model in range(MAX_MODELS):
        curves.add(f"m{model}", 0, 0.0, 1.0)
    curves.add("m0", 1, 1.0, 1.0)
    curves.add("new", 1, 1.0, 1.0)
    kept = {curve["model_id"] for curve in curves.told()}
    assert len(kept) == MAX_MODELS
    assert {"m0", "new"} <= kept
    assert "m1" not in kept
