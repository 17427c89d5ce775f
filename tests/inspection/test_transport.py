"""Tests for afmlib.inspection.transport and of its figure."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib import build_objective
from afmlib.data.digits import Digits
from afmlib.data.overlapping_gaussians import OverlappingGaussians
from afmlib.data.points import EightGaussians, FourGaussians
from afmlib.inspection import Transport, measure_transport, transport_figure
from afmlib.inspection.transport_figure import colors_of
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.transport_map import TransportMap
from afmlib.ops.seeding import indexed_noises
from afmlib.sampling import sample

LINE, PLANE = FourGaussians(200), EightGaussians(200)


def paths(num=40, dimensions=2, nfe=1, targets=True, classes=1):
    path = torch.randn(nfe + 1, num, dimensions, dtype=torch.float64)
    ends = torch.randn(num, dimensions, dtype=torch.float64) if targets else None
    return Transport("model", path, torch.arange(num) % classes, ends, torch.randn(num, dimensions))


@pytest.mark.parametrize("dataset", [LINE, PLANE], ids=["line", "plane"])
@pytest.mark.parametrize("nfe", [1, 3])
def test_paths_match_sample(halfway, dataset, nfe):
    model = halfway(dataset.latent_shape, 1)

    made = measure_transport("name", model, dataset, num=50, seed=7, nfe=nfe)

    noises = indexed_noises(7, range(50), dataset.latent_shape)
    assert torch.equal(made.noises.float(), noises)
    assert torch.equal(made.samples.float(), sample(model, [0] * 50, nfe, seed=7))
    assert torch.equal(made.targets, dataset.optimal_targets(noises.double()))
    for index in range(nfe + 1):  # The model halves its input.
        torch.testing.assert_close(made.path[index].float(), noises * 0.5**index)
    assert made.times == [1 - index / nfe for index in range(nfe + 1)]


def test_paths_with_added_noise_match_sample():
    spec = dict(type="MLPGenerator", in_channels=1, hidden_size=8, depth=1, use_timestep_src=True)
    model = build_objective("ConsistencyTraining", generator=spec).sample_model

    made = measure_transport("name", model, LINE, num=20, seed=3, nfe=3)

    assert torch.equal(made.samples.float(), sample(model, [0] * 20, 3, seed=3))


@pytest.mark.parametrize("dataset", [LINE, PLANE], ids=["line", "plane"])
def test_numbers_match_metric(halfway, dataset):
    made = measure_transport("name", halfway(dataset.latent_shape, 1), dataset, num=100)

    values = TransportMap()(
        EvaluationData(
            samples=made.samples.float(),
            labels=made.labels,
            dataset=dataset,
            noises=made.noises.float(),
        )
    )

    assert made.cost == pytest.approx(values["transport_cost"], rel=1e-5)
    assert made.optimal_cost == pytest.approx(values["optimal_cost"], rel=1e-5)
    assert made.map_rmse == pytest.approx(values["map_rmse"], rel=1e-5)
    assert f"{made.cost:.3f}" in made.caption
    assert f"{made.map_rmse:.3f}" in made.caption


def test_optimal_map_per_class(halfway):
    dataset = OverlappingGaussians(30, num_classes=3)

    made = measure_transport("name", halfway((2,), 3), dataset, num=30)

    assert made.labels.bincount().tolist() == [10, 10, 10]
    expected = dataset.centers[made.labels] + dataset.std * made.noises
    torch.testing.assert_close(made.targets, expected)


def test_unknown_map_has_only_cost():
    made = paths(targets=False)

    assert (made.optimal_cost, made.map_rmse) == (None, None)
    assert "optimal" not in made.caption
    assert list(panels(transport_figure([made]))) == ["model, nfe 1"]


@given(st.integers(1, 60), st.integers(1, 80))
@settings(max_examples=25)
def test_chosen_paths_are_evenly_ranked(num, count):
    made = paths(num, dimensions=1)

    rows = made.chosen(count)

    assert len(set(rows.tolist())) == len(rows) == min(num, count)
    ranks = made.noises[:, 0].argsort().argsort()[rows]
    steps = ranks.diff()
    assert (steps > 0).all()
    assert steps.numel() == 0 or steps.max() - steps.min() <= 1
    if count >= 2:
        assert (ranks[0], ranks[-1]) == (0, num - 1)


def panels(figure):
    return {part.get_suptitle(): part for part in figure.subfigs}


def test_plane_lines_go_from_noise_to_sample():
    made = paths(nfe=2)
    drawn = panels(transport_figure([made], num_lines=30))

    assert list(drawn) == ["optimal transport", "model, nfe 2"]
    for name, expected in (
        ("model, nfe 2", made.path),
        ("optimal transport", torch.stack([made.noises, made.targets])),
    ):
        (axes,) = drawn[name].axes
        (lines,) = (c for c in axes.collections if type(c).__name__ == "LineCollection")
        segments = torch.as_tensor(np.stack(lines.get_segments()))
        assert torch.equal(segments, expected[:, :30].permute(1, 0, 2))
        assert axes.get_xlim() == axes.get_ylim()
        assert axes.get_xlim()[1] >= expected[:, :30].abs().max()
    data, *points = (
        c for c in drawn["model, nfe 2"].axes[0].collections if hasattr(c, "get_sizes")
    )
    offsets = [
        torch.as_tensor(part.get_offsets().data) for part in points if len(part.get_offsets())
    ]
    assert len(data.get_offsets()) == len(made.data)
    for index, part in enumerate(offsets):  # Noises, the step in between, samples.
        assert torch.equal(part, made.path[index, :30])


def test_colors_are_angles_or_classes():
    angles = torch.tensor([0.0, 0.5, 0.5 + 2 * math.pi, -math.pi / 2], dtype=torch.float64)
    noises = torch.stack([angles.cos(), angles.sin()], dim=1)
    plain = paths(4)
    made = Transport("x", torch.stack([noises, noises]), plain.labels * 0, None, noises)
    classes = Transport(
        "x", torch.stack([noises, noises]), torch.tensor([0, 1, 1, 2]), None, noises
    )

    red, one, same, other = colors_of(made)
    assert red[:3].tolist() == [1, 0, 0]
    assert (one == same).all()
    assert (one != other).any()
    first, second, third, fourth = colors_of(classes)
    assert (second == third).all()
    assert (first != second).any()
    assert (second != fourth).any()


def test_line_panel_content():
    made = paths(num=25, dimensions=1, nfe=2)
    drawn = panels(transport_figure([made], num_lines=10))

    _, middle, _ = drawn["model, nfe 2"].subfigs[0].axes
    (lower,) = drawn["model, nfe 2"].subfigs[1].axes
    chosen = made.chosen(10)
    for line, row in zip(middle.lines[:10], chosen, strict=True):
        assert line.get_xdata().tolist() == [1.0, 0.5, 0.0]
        assert line.get_ydata().tolist() == made.path[:, row, 0].tolist()
    assert middle.get_xlim() == (1, 0)
    optimal, own = lower.lines
    order = made.noises[:, 0].argsort()
    assert optimal.get_ydata().tolist() == made.targets[order, 0].tolist()
    assert own.get_ydata().tolist() == made.samples[order, 0].tolist()
    assert own.get_xdata().tolist() == made.noises[order, 0].tolist()


def test_panels_have_captions():
    one, two = paths(), paths()

    figure = transport_figure([one, two])

    texts = [part.get_supxlabel() for part in figure.subfigs]
    assert texts[1:] == [one.caption, two.caption]
    assert "map error 0.000" in texts[0]


def test_invalid_arguments_raise(halfway):
    with pytest.raises(ValueError, match="name has shape \\(1, 8, 8\\)"):
        measure_transport("name", halfway(), Digits())
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        measure_transport("name", halfway((1,), 1), LINE, num=0)
    with pytest.raises(ValueError, match="dimension"):
        transport_figure([paths(), paths(dimensions=1)])
    with pytest.raises(ValueError, match="at least one model and one line"):
        transport_figure([])
