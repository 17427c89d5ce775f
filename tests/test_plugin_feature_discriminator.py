"""A discriminator on frozen features is a distribution: installed by pip, trained by its name."""

import pytest
from installed_plugins import install, run, run_own_tests

PLUGIN = "afmlib-feature-discriminator"

USE = """
import timm
import torch
from safetensors.torch import save_file
from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.registry import DISCRIMINATORS

print(DISCRIMINATORS.components()["FeatureDiscriminator"], DISCRIMINATORS.problems())
save_file(timm.create_model("test_efficientnet", pretrained=False).state_dict(), "w.safetensors")
discriminator = "{type: FeatureDiscriminator, backbone: test_efficientnet, weights: w.safetensors,"
discriminator += " resolution: 32, channels: 8}"
small = ["hidden_size=8", "depth=1", "num_heads=2"]
overrides = [f"objective.generator.{value}" for value in small]
overrides += [f"objective.discriminator={discriminator}", "global_batch=8", "num_images=16",
              "evaluation.metrics=[]", "evaluation.extractor=null", "log.every=8",
              "log.grid_rows=1"]
runner = Runner(load_config("afm_digits", overrides), "run", device="cpu")
network = runner.objective.discriminator
before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
runner.train()
after = network.state_dict()
changed = {name for name in before if not torch.equal(before[name], after[name])}
print(runner.train_loop.iter, bool(changed), {name.split(".")[0] for name in changed})
optimized = sum(p.numel() for p in runner.step.optimizers["discriminator"].trainable)
print(optimized == sum(p.numel() for p in network.heads.parameters()))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return install(tmp_path_factory.mktemp("plugin"), PLUGIN)


def test_two_updates_by_name(environment, tmp_path):
    done = run(environment, "-c", USE, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("afm_digits:")]
    assert lines == [f"{PLUGIN} {{}}", "2 True {'heads'}", "True"]


def test_plugin_tests_pass(environment, tmp_path):
    done = run_own_tests(environment, PLUGIN, tmp_path)

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
