"""Tests for afmlib.engine.phases.fixed."""

from hypothesis import given
from hypothesis import strategies as st

from afmlib.engine.phases import Action, FixedController

lists = st.lists(st.tuples(st.integers(2, 300), st.integers(1, 299)), max_size=8)


@given(lists, st.integers(1, 70))
def test_each_action_happens_once_when_due(pairs, batch):
    actions = [Action(at, restore_from=min(back, at - 1)) for at, back in pairs]
    controller = FixedController([*actions, Action(0)])
    done, kept = [(0, action) for action in controller.begin()], {}
    for previous in range(0, 400, batch):
        done += [
            (previous + batch, a) for a in controller.decide(previous, previous + batch, None, {})
        ]
        for count in controller.wants_snapshots(previous, previous + batch):
            kept[count] = previous + batch

    assert sorted(a.at for _, a in done) == sorted([0, *(a.at for a in actions)])
    assert all(at - batch < action.at <= at for at, action in done)
    assert [at for at, _ in done] == sorted(at for at, _ in done)
    assert set(kept) == {action.restore_from for action in actions}
    assert all(at - batch < count <= at for count, at in kept.items())
