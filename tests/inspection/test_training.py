"""Tests for afmlib.inspection.training and of its figure."""

import json

import pytest

from afmlib.inspection import TrainingRecord, read_training, training_figure
from afmlib.inspection.training import panels_of

LOG = [
    {
        "num_images": images,
        "discriminator/adversarial": 0.7 + images,
        "discriminator/r1": 0.1,
        "discriminator/loss": 0.8,
        "discriminator/logits_real": 1.0,
        "discriminator/logits_real_std": 0.25,
        "discriminator/logits_fake": -1.0,
        "discriminator/logits_fake_std": 0.5,
        "discriminator/sign_rate": 0.5,
        "discriminator/gradient_norm": 2.0,
        "discriminator/lr": 1e-3,
        "generator/adversarial": 0.9,
        "generator/transport": 0.2,
        "generator/guidance": 0.3,
        "generator/loss": 1.4,
        "generator/gradient_adversarial": 0.1,
        "generator/gradient_adversarial_std": 0.01,
        "generator/gradient_transport": 0.02,
        "generator/gradient_guidance": 0.03,
        "generator/gradient_guidance_std": 0.01,
        "generator/gradient_norm": 3.0,
        "generator/lr": 5e-4,
        "images_per_second": 100.0,
        "peak_memory_gib": 0.5,
    }
    for images in (100, 200, 300)
]
EVALUATIONS = [{"num_images": 200, "protocol": {}, "values": {"frechet_distance": 4.0}}]
DECISIONS = [
    {"num_images": 0, "changes": {"guidance": False}, "reason": "the beginning"},
    {"num_images": 50, "changes": {"ot_scale": 0.2}, "reason": "lowered"},
    {"num_images": 150, "changes": {"ot_scale": 0.1}, "reason": "lowered"},
    {"num_images": 250, "changes": {"ot_scale": 0.15}, "restore": ["generator"], "reason": "back"},
    {"num_images": 250, "changes": {}, "reload_ema": True, "reason": "a plateau"},
]
EXPECTED = {
    "logits (discriminator's updates)": ["discriminator/logits_real", "discriminator/logits_fake"],
    "mean sign of the real logits": ["discriminator/sign_rate"],
    "terms, discriminator": ["discriminator/adversarial", "discriminator/r1", "discriminator/loss"],
    "terms, generator": [
        "generator/adversarial",
        "generator/transport",
        "generator/guidance",
        "generator/loss",
    ],
    "gradient norms at the generator's output": [
        "generator/gradient_adversarial",
        "generator/gradient_transport",
        "generator/gradient_guidance",
    ],
    "gradient norms": ["discriminator/gradient_norm", "generator/gradient_norm"],
    "learning rates": ["discriminator/lr", "generator/lr"],
    "evaluation, frechet_distance": ["frechet_distance"],
}


def write(folder, **files):
    for name, entries in files.items():
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"{name}.jsonl").write_text(lines)


def test_each_logged_number_has_one_panel():
    panels = panels_of(TrainingRecord(LOG, EVALUATIONS))

    assert {panel.title: [curve.name for curve in panel.curves] for panel in panels} == EXPECTED
    shown = [name for names in EXPECTED.values() for name in names]
    speed = {"num_images", "images_per_second", "peak_memory_gib"}
    logged = {key for key in LOG[0] if not key.endswith("_std")} - speed
    assert set(shown) == logged | {"frechet_distance"}
    assert len(shown) == len(set(shown))


def test_curves_match_log():
    panels = {panel.title: panel for panel in panels_of(TrainingRecord(LOG, EVALUATIONS))}

    real, fake = panels["logits (discriminator's updates)"].curves
    assert (real.images, real.values, real.spreads) == ([100, 200, 300], [1.0] * 3, [0.25] * 3)
    assert fake.spreads == [0.5] * 3
    term = panels["terms, discriminator"].curves[0]
    assert (term.values, term.spreads) == ([100.7, 200.7, 300.7], None)
    (distance,) = panels["evaluation, frechet_distance"].curves
    assert (distance.images, distance.values) == ([200], [4.0])


def test_scale_is_a_curve_and_other_decisions_are_marked():
    record = TrainingRecord(LOG, EVALUATIONS, DECISIONS)
    panels = {panel.title: panel for panel in panels_of(record)}

    (scale,) = panels["transport scale"].curves
    assert (scale.images, scale.values) == ([50, 150, 250], [0.2, 0.1, 0.15])
    assert [turn["reason"] for turn in record.marked_decisions] == [
        "the beginning",
        "back",
        "a plateau",
    ]


def test_panels_of_other_objectives():
    log = [{"num_images": 8, "generator/velocity": 1.0, "generator/loss": 1.0, "generator/lr": 0.1}]

    titles = [panel.title for panel in panels_of(TrainingRecord(log))]

    assert titles == ["terms, generator", "learning rates"]


def test_classifier_observations_are_not_terms():
    numbers = {"cross_entropy": 2.0, "loss": 2.0, "accuracy": 0.5, "accuracy_std": 0.25, "lr": 0.1}
    log = [{"num_images": 8, **{f"classifier/{name}": x for name, x in numbers.items()}}]

    panels = {panel.title: panel.curves for panel in panels_of(TrainingRecord(log))}

    assert list(panels) == ["terms, classifier", "accuracy, classifier", "learning rates"]
    terms = [curve.name for curve in panels["terms, classifier"]]
    assert terms == ["classifier/cross_entropy", "classifier/loss"]
    (accuracy,) = panels["accuracy, classifier"]
    assert (accuracy.values, accuracy.spreads) == ([0.5], [0.25])


def test_figure_content():
    figure = training_figure(TrainingRecord(LOG, EVALUATIONS, DECISIONS))

    upper, lower = figure.subfigs
    shown = [axes for axes in upper.axes if axes.axison]
    titles = list(EXPECTED)
    assert [axes.get_title() for axes in shown] == [*titles[:-1], "transport scale", titles[-1]]
    for axes in shown:
        vertical = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert vertical[-2:] == [0, 250]
        assert [text.get_text() for text in axes.texts] == ["1", "2, 3"]
        assert axes.get_xlim()[0] == 0
    logits = shown[0]
    band = logits.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.75, 1.25)
    assert shown[4].get_yscale() == "log"
    assert lower.texts[0].get_text().splitlines() == [
        "1. at 0 images: the beginning",
        "2. at 250 images: back",
        "3. at 250 images: a plateau",
    ]


def test_read_training_skips_torn_lines(tmp_path):
    write(tmp_path, log=LOG, evaluations=EVALUATIONS, decisions=DECISIONS)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"num_images": 400, "generator/lo')

    record = read_training(str(tmp_path))

    assert (record.log, record.evaluations, record.decisions) == (LOG, EVALUATIONS, DECISIONS)


def test_read_training_from_object_store(s3_folder):
    from afmlib.io import storage

    lines = "".join(json.dumps(entry) + "\n" for entry in LOG)
    storage.write_atomically(storage.join(s3_folder, "log.jsonl"), lines.encode())

    assert read_training(s3_folder) == TrainingRecord(LOG, [], [])


def test_missing_log_or_numbers_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="no log of a run"):
        read_training(str(tmp_path))
    with pytest.raises(ValueError, match="no numbers yet"):
        training_figure(TrainingRecord([{"num_images": 1}]))
