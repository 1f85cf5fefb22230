"""What a lane's numbers are worth; how requests are admitted is in test_lanes.py."""

import pytest

from tinkex_proxy.core.coalesce import Item, Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.errors import UpstreamConflict, UpstreamRefused
from tinkex_proxy.runtime.admit import MAX_BEHIND, Admitter
from tinkex_proxy.runtime.recognition import Assumed, Recognition
from tinkex_proxy.runtime.submit import Admitted, Refused
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.wire.datum import Flavour

STEP = "/api/v1/optim_step"
CONFLICT = Refused(UpstreamConflict("used"), 409)
NOT_FOUND = Refused(UpstreamRefused("not here"), 404)


def lane_on_wire() -> Lane:
    lane = Lane(Limits(idle_s=0.0))
    lane.add(Item(id=1, key=None), 0.0)
    assert lane.poll(0.0).seq_id == 1
    return lane


def admitter_of(lane: Lane, *, knows: bool = True, assumed: Assumed = Assumed.ASK) -> Admitter:
    async def asked(_: str) -> bool:
        return knows

    return Admitter("m", lane, submitter=None, recognition=Recognition(assumed), knows=asked)


def test_a_number_that_is_not_in_doubt_is_a_conflict() -> None:
    assert not admitter_of(lane_on_wire()).outnumbered(CONFLICT, STEP)


def test_a_number_in_doubt_that_is_used_is_passed_over_once() -> None:
    lane = lane_on_wire()
    admitter = admitter_of(lane)
    admitter.doubt(1)
    assert not admitter.outnumbered(NOT_FOUND, STEP)
    assert admitter.outnumbered(CONFLICT, STEP)
    assert lane.poll(0.0).seq_id == 2
    assert not admitter.outnumbered(CONFLICT, STEP)


@pytest.mark.parametrize(("path", "passed"), [(STEP, MAX_BEHIND + 1), ("/api/v1/save_weights", 1)])
def test_a_lane_of_a_journal_passes_over_numbers_until_one_is_taken(path, passed) -> None:
    """Not for ever; and where a 409 may be about a name, only over the one in doubt."""
    lane = lane_on_wire()
    admitter = admitter_of(lane)
    admitter.resume()
    count = 0
    while admitter.outnumbered(CONFLICT, path):
        count += 1
        lane.poll(0.0)
    assert count == passed


def test_what_is_admitted_is_in_doubt_no_more_and_the_journal_is_not_behind() -> None:
    lane = lane_on_wire()
    admitter = admitter_of(lane)
    admitter.resume()
    admitter.admitted()
    lane.add(Item(id=2, key=None), 0.0)
    assert lane.poll(0.0).seq_id == 2
    assert not admitter.outnumbered(CONFLICT, STEP)


@pytest.mark.parametrize(("knows", "gone"), [(True, False), (False, True)])
async def test_a_404_is_the_models_end_only_if_the_upstream_says_so(knows, gone) -> None:
    admitter = admitter_of(lane_on_wire(), knows=knows)
    error = await admitter.gone(NOT_FOUND)
    assert (error is not None and error.code == "model_gone") is gone
    assert await admitter.gone(CONFLICT) is None
    assert await admitter.gone(Admitted("r", Response(200, {}, b""))) is None


def test_whether_repetitions_are_safe_is_what_is_known_of_the_upstream() -> None:
    lane = lane_on_wire()
    assert admitter_of(lane, assumed=Assumed.YES).repeatable(Flavour.PROTOBUF)
    assert not admitter_of(lane).repeatable(Flavour.PROTOBUF)
