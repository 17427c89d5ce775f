"""The example plugin is a distribution: installed by pip, it works in everything by its name."""

import pytest
from installed_plugins import example, install, run, run_own_tests

PLUGIN = "afmlib-conv-discriminator"

USE = """
import torch
from afmlib import build_discriminator, build_objective, list_components
from afmlib.registry import DISCRIMINATORS
from afmlib.testing import check_discriminator, check_objective

torch.set_num_threads(1)
torch.manual_seed(0)
print(list_components("discriminators")["StridedDiscriminator"], DISCRIMINATORS.problems())

sizes = dict(input_size=8, in_channels=1, num_classes=10)
spec = dict(type="StridedDiscriminator", channels=8, **sizes)
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
    return install(tmp_path_factory.mktemp("plugin"), PLUGIN)


def test_installed_plugin_trains(environment):
    done = run(environment, "-c", USE)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["afmlib-conv-discriminator {}", "True", "True"]


def test_plugin_tests_pass(environment, tmp_path):
    done = run_own_tests(environment, PLUGIN, tmp_path)

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_readme_example_runs(environment):
    code = example(PLUGIN) + "\nprint(type(objective.discriminator).__name__)"
    done = run(environment, "-c", code)

    assert done.stderr == ""
    assert done.stdout == "StridedDiscriminator\n"
