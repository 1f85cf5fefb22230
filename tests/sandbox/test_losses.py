"""The losses: values by hand, slopes by finite differences."""

import numpy as np
import pytest

from tinkex_proxy.sandbox.losses import LOSSES, NEEDS

LOGPROBS = np.log([0.5, 0.25, 0.9])
INPUTS = {
    "weights": np.array([1.0, 0.0, 2.0]),
    "logprobs": np.log([0.5, 0.2, 0.5]),
    "advantages": np.array([1.0, -2.0, 3.0]),
}


def test_cross_entropy_weighs_each_token_and_ones_are_the_default() -> None:
    values, slope = LOSSES["cross_entropy"](LOGPROBS, INPUTS, {})
    assert values == pytest.approx([np.log(2), 0.0, -2 * np.log(0.9)])
    assert slope == pytest.approx([-1.0, 0.0, -2.0])
    values, _ = LOSSES["cross_entropy"](LOGPROBS, {}, {})
    assert values == pytest.approx(-LOGPROBS)


def test_importance_sampling_weighs_advantages_by_the_ratio() -> None:
    values, _ = LOSSES["importance_sampling"](LOGPROBS, INPUTS, {})
    assert values == pytest.approx([-1.0, 2 * 1.25, -3 * 1.8])


def test_ppo_clips_the_ratio_where_that_makes_the_loss_larger() -> None:
    """Ratios 1, 1.25 and 1.8: the last is clipped; a negative advantage is not helped by a clip."""
    values, slope = LOSSES["ppo"](LOGPROBS, INPUTS, {})
    assert values == pytest.approx([-1.0, 2 * 1.25, -3 * 1.2])
    assert slope == pytest.approx([-1.0, 2 * 1.25, 0.0])


def test_ppo_takes_its_thresholds_from_the_config() -> None:
    config = {"clip_low_threshold": 0.5, "clip_high_threshold": 1.5}
    values, _ = LOSSES["ppo"](LOGPROBS, INPUTS, config)
    assert values[2] == pytest.approx(-3 * 1.5)
    fallen = LOGPROBS - 2.0
    values, slope = LOSSES["ppo"](fallen, INPUTS, config)
    assert values[1] == pytest.approx(2 * 0.5)
    assert slope[1] == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    by = 1e-6
    above, _ = LOSSES[name](LOGPROBS + by, INPUTS, {})
    below, _ = LOSSES[name](LOGPROBS - by, INPUTS, {})
    _, slope = LOSSES[name](LOGPROBS, INPUTS, {})
    assert slope == pytest.approx((above - below) / (2 * by), abs=1e-6)


def test_every_loss_says_what_it_needs() -> None:
    assert NEEDS.keys() == LOSSES.keys()
    assert all("target_tokens" in names for names in NEEDS.values())
