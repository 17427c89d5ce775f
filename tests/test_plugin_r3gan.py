"""The networks of R3GAN are a distribution: installed by pip, its configs are trained by name."""

import json
from pathlib import Path

import pytest
from installed_plugins import example, install, run, run_own_tests

from afmlib.config import config_names

PLUGIN = "afmlib-r3gan"
EMOJI = Path(__file__).parents[1] / "benchmarks/data/emoji32.npz"
CONFIGS = [name for name in config_names() if name.startswith("r3gan_")]

USE = f"""
import json

import torch
from afmlib.config import check_config, config_names, load_config
from afmlib.engine import Runner
from afmlib.registry import REGISTRIES

print([registry.problems() for registry in REGISTRIES.values() if registry.problems()])
print(json.dumps([name for name in config_names() if name.startswith("r3gan_")]))
for name in {CONFIGS}:
    check_config(load_config(name))

SMALL = ["channels=8", "group_width=4"]
overrides = [f"objective.{{player}}.{{value}}" for player in ("generator", "discriminator")
             for value in SMALL]
overrides += ["global_batch=8", "num_images=16", "evaluation.metrics=[]",
              "evaluation.extractor=null", "log.every=8", "log.grid_rows=1"]
for name, data in (("r3gan_digits", []), ("r3gan_emoji", ["data.path={EMOJI}"])):
    runner = Runner(load_config(name, overrides + data), name, device="cpu")
    networks = runner.objective.generator, runner.objective.discriminator
    before = [[parameter.clone() for parameter in network.parameters()] for network in networks]
    runner.train()
    print(runner.train_loop.iter)
    for network, old in zip(networks, before):
        changed = [not torch.equal(*pair) for pair in zip(network.parameters(), old)]
        print(type(network).__name__, sum(changed) == len(changed),
              all(parameter.isfinite().all() for parameter in network.parameters()))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return install(tmp_path_factory.mktemp("plugin"), PLUGIN)


def test_configs_check_and_train(environment, tmp_path):
    code = USE + example(PLUGIN) + "\nprint(type(objective.generator).__name__)"
    done = run(environment, "-c", code, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    problems, names, *others = [
        line
        for line in done.stdout.splitlines()
        if not line.startswith(("r3gan_digits:", "r3gan_emoji:"))
    ]
    assert problems == "[]"
    assert json.loads(names) == CONFIGS
    steps = ["2", "R3GANGenerator True True", "R3GANDiscriminator True True"]
    assert others == [*steps, *steps, "R3GANGenerator"]
    manifest = next(tmp_path.rglob("manifest.json")).read_text()
    assert "R3GANGenerator" in manifest


def test_plugin_tests_pass(environment, tmp_path):
    done = run_own_tests(environment, PLUGIN, tmp_path)

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_configs_are_listed_without_plugin():
    assert {"r3gan_digits", "r3gan_emoji", "r3gan_b2", "r3gan_xl2"} <= set(CONFIGS)
    assert "r3gan_gaussians1d" not in CONFIGS
