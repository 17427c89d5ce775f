"""Tests for afmlib.engine.utilization and the entry ``mfu`` of a log."""

import json

import pytest
import torch

from afmlib.engine.utilization import PEAKS, OperationCounter, peak_of


def test_one_matrix_product_is_counted():
    counter = OperationCounter()
    counter.start()
    torch.randn(3, 5) @ torch.randn(5, 7)
    counter.stop()
    counter.start()
    torch.randn(30, 50) @ torch.randn(50, 70)
    counter.stop()

    assert counter.operations == 2 * 3 * 5 * 7


def test_peak_by_name_and_precision(monkeypatch):
    device = torch.device("cuda")
    for name, peak in (("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_of(device, "bfloat16") == peak
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "something else")
    assert peak_of(device, "bfloat16") is None
    assert peak_of(torch.device("cpu"), "float32") is None
    assert all(min(peaks.values()) > 0 for peaks in PEAKS.values())


def test_log_has_mfu_where_the_peak_is_known(run, tmp_path, monkeypatch):
    monkeypatch.setattr("afmlib.engine.hooks.log.peak_of", lambda device, precision: 1.0)

    runner = run()

    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "LogHook")
    entry = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    iterations = entry["images_per_second"] / runner.train_loop.images_per_iter
    assert hook.counter.operations > 1000
    assert entry["mfu"] == pytest.approx(hook.counter.operations * iterations, rel=0.1)
