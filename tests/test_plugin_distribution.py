"""The example plugin is a distribution: installed by pip, it works in everything by its name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1] / "plugins" / "afmlib-conv-discriminator"

USE = """
import torch
from afmlib import build_discriminator, build_objective, list_components
from afmlib.registry import DISCRIMINATORS
from afmlib.testing import check_discriminator, check_objective

torch.set_num_threads(1)
torch.manual_seed(0)
print(list_components("discriminators")["ConvDiscriminator"], DISCRIMINATORS.problems())

sizes = dict(input_size=8, in_channels=1, num_classes=10)
spec = dict(type="ConvDiscriminator", channels=8, **sizes)
check_discriminator(build_discriminator(spec), (1, 8, 8), 10)

dit = dict(type="dit_s_2", hidden_size=32, depth=2, num_heads=2, **sizes)
objective = build_objective("AdversarialFlow", generator=dit, discriminator=spec)
check_objective(objective)

latents, labels = 0.3 * torch.randn(32, 1, 8, 8), torch.arange(32) % 10
optimizers = {
    player: torch.optim.AdamW(getattr(objective, player).parameters(), lr=2e-3, betas=(0.0, 0.9))
    for player in objective.players
}
numbers = torch.Generator().manual_seed(0)
distances = []
for _ in range(20):
    for player, optimizer in optimizers.items():
        draws = objective.draw(latents, numbers)
        terms = objective.terms(player, latents, labels, draws)
        loss = sum(terms.values())
        assert loss.isfinite(), terms
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    distances.append(terms["transport"].item())
print(distances[-1] < 0.9 * distances[0])

trained = objective.discriminator
draws = objective.draw(latents, numbers)
first = sum(objective.terms("discriminator", latents, labels, draws).values()).item()
for _ in range(20):
    loss = sum(objective.terms("discriminator", latents, labels, draws).values())
    optimizers["discriminator"].zero_grad()
    loss.backward()
    optimizers["discriminator"].step()
print(loss.item() < first)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Installs the plugin into a folder, and returns the variables that put it on the path."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(
        PLUGIN,
        folder / "source",
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--disable-pip-version-check", "--target", site, source]
    subprocess.run(install, check=True)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_installed_plugin_is_listed_checked_and_trained(environment):
    done = subprocess.run(
        [sys.executable, "-c", USE], env=environment, capture_output=True, text=True
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["afmlib-conv-discriminator {}", "True", "True"]


def test_own_tests_of_the_plugin_pass(environment, tmp_path):
    tests = shutil.copytree(PLUGIN / "tests", tmp_path / "tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_example_of_the_readme_runs(environment):
    readme = (PLUGIN / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0]

    code = example + "\nprint(type(objective.discriminator).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )

    assert done.stderr == ""
    assert done.stdout == "ConvDiscriminator\n"
