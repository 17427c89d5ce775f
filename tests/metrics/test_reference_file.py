"""Tests for afmlib.metrics.reference_file."""

import numpy as np
import pytest
import torch

from afmlib.interfaces import FeatureExtractor
from afmlib.io.npz import NpzError
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.frechet_distance import FrechetDistance
from afmlib.metrics.inception_extractor import INCEPTION
from afmlib.metrics.precision_recall import PrecisionRecall
from afmlib.metrics.reference_file import ReferenceFile
from afmlib.metrics.rgb import to_rgb_bytes
from afmlib.metrics.spatial_frechet_distance import SpatialFrechetDistance


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Corner(FeatureExtractor):
    """Two numbers of the image as features, and four others as spatial ones."""

    name = "corner"
    outputs = frozenset({"features", "spatial"})
    calls = 0

    def forward(self, images):
        return self.extract(images)["features"]

    def extract(self, images):
        self.calls += 1
        rows = images.flatten(1)
        return {"features": rows[:, :2], "spatial": rows[:, 2:6]}


def statistics(dim, seed=0):
    numbers = np.random.default_rng(seed)
    factor = numbers.normal(size=(dim, dim))
    return numbers.normal(size=dim), factor @ factor.T


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def pixels(num=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, 4, 4, 3), dtype=np.uint8)


def test_given_statistics_are_used(tmp_path):
    (mu, sigma), (mu_s, sigma_s) = statistics(2), statistics(4)
    arrays = dict(mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s, extractor=np.array("corner"))
    file = ReferenceFile(save(tmp_path / "x.npz", **arrays, arr_0=pixels()))

    for output, expected in (("features", (mu, sigma)), ("spatial", (mu_s, sigma_s))):
        found = file.statistics(output, Corner())
        np.testing.assert_array_equal(found.mu, expected[0])
        np.testing.assert_array_equal(found.sigma, expected[1])


def test_statistics_of_images(tmp_path):
    images = pixels()
    file = ReferenceFile(save(tmp_path / "x.npz", arr_0=images), batch_size=7)
    extractor = Corner()

    found = file.statistics("spatial", extractor)

    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)[:, 2:6] / 127.5 - 1
    np.testing.assert_allclose(found.mu, rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.sigma, np.cov(rows, rowvar=False), atol=1e-6)
    assert file.rows("features", extractor).shape == (20, 2)
    assert extractor.calls == 3  # All outputs in one pass, batch by batch.


def test_images_are_lossless(tmp_path):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    file = ReferenceFile(save(tmp_path / "x.npz", arr_0=images))

    (batch,) = file._batches()

    assert to_rgb_bytes(batch)[0, 0].flatten().tolist() == list(range(256))


def test_reference_images_equal_data(tmp_path, tensors):
    images = pixels(30)
    file = ReferenceFile(save(tmp_path / "x.npz", arr_0=images))
    data = tensors(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
    samples = torch.rand(25, 3, 4, 4) * 2 - 1

    for metric in (FrechetDistance(), SpatialFrechetDistance(), PrecisionRecall()):
        by_data = metric(EvaluationData(samples=samples, dataset=data, extractor=Corner()))
        by_file = metric(EvaluationData(samples=samples, reference=file, extractor=Corner()))
        assert by_file == pytest.approx({k: v for k, v in by_data.items() if "pixel" not in k})


def test_statistics_of_another_extractor_raise(tmp_path):
    mu, sigma = statistics(2)
    named = ReferenceFile(save(tmp_path / "a.npz", mu=mu, sigma=sigma, extractor=np.array("x-1")))
    nameless = ReferenceFile(save(tmp_path / "b.npz", mu=mu, sigma=sigma))
    inception = Corner()
    inception.name = f"{INCEPTION}-2048"

    with pytest.raises(ValueError, match="of the features x-1, not of corner"):
        named.statistics("features", Corner())
    with pytest.raises(ValueError, match=r"of the features inception.* .the default."):
        nameless.statistics("features", Corner())
    assert nameless.statistics("features", inception).mu.tolist() == mu.tolist()


def test_statistics_without_images_raise(tmp_path):
    mu, sigma = statistics(2)
    file = ReferenceFile(save(tmp_path / "x.npz", mu=mu, sigma=sigma, extractor=np.array("corner")))

    with pytest.raises(ValueError, match="holds only statistics"):
        file.rows("features", Corner())
    with pytest.raises(ValueError, match="holds only statistics"):
        file.statistics("spatial", Corner())


def broken_files():
    mu, sigma = statistics(3)
    skew = sigma.copy()
    skew[0, 1] += 1
    ok = dict(mu=mu, sigma=sigma)
    return {
        "have shapes": dict(mu=mu, sigma=sigma[:2]),
        "a mean": dict(mu=mu[None], sigma=sigma),
        "not symmetric": dict(mu=mu, sigma=skew),
        "negative variances": dict(mu=mu, sigma=sigma - 99 * np.eye(3)),
        "mu .* is not finite": dict(mu=mu * np.nan, sigma=sigma),
        "sigma .* is not finite": dict(mu=mu, sigma=sigma * np.inf),
        "floating-point": dict(mu=np.arange(3), sigma=sigma),
        "no array 'sigma'": dict(mu=mu),
        "no array 'sigma_s'": ok | dict(mu_s=mu),
        "neither statistics": dict(arr_1=mu),
        "uint8 of shape": dict(arr_0=np.zeros((2, 4, 4, 3), np.float32)),
        "images are uint8": dict(arr_0=np.zeros((2, 3, 4, 4), np.uint8)),
        "is not text": ok | dict(extractor=np.arange(3)),
    }


@pytest.mark.parametrize("message", list(broken_files()))
def test_invalid_reference_raises(tmp_path, message):
    with pytest.raises(NpzError, match=message):
        ReferenceFile(save(tmp_path / "x.npz", **broken_files()[message]))


def test_reference_name_has_its_hash(tmp_path):
    texts = [
        str(ReferenceFile(save(tmp_path / "x.npz", arr_0=pixels(seed=seed)))) for seed in (0, 0, 1)
    ]

    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("x.npz, SHA-256 ")


def test_features_are_cached_by_content(tmp_path, cache, caplog):
    path, extractor = save(tmp_path / "x.npz", arr_0=pixels()), Corner()
    rows = ReferenceFile(path).rows("features", extractor)
    calls = extractor.calls

    again = ReferenceFile(save(tmp_path / "same.npz", arr_0=pixels())).rows("features", extractor)

    assert torch.equal(again, rows)
    assert extractor.calls == calls
    ReferenceFile(save(tmp_path / "other.npz", arr_0=pixels(seed=1))).rows("features", extractor)
    assert extractor.calls == 2 * calls
    for file in cache.rglob("*.safetensors"):
        file.write_bytes(b"corrupt")
    assert torch.equal(ReferenceFile(path).rows("features", extractor), rows)
    assert "The reference is extracted again" in caplog.text
