"""Tests for benchmarks/efficiency: what is counted against closed forms, the rest by its laws."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from afmlib import build_objective
from afmlib.config import load_config
from afmlib.interfaces import Minibatch
from afmlib.networks.dit import DiTGenerator

ROOT = Path(__file__).parents[2]

DEADLY = """
import os

from afmlib.networks.dit import DiTDiscriminator
from afmlib.registry import DISCRIMINATORS


@DISCRIMINATORS.register_module()
class Deadly(DiTDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        if latents.device.type != "meta":
            os._exit(7)
        return super().forward(latents, labels, timesteps)


@DISCRIMINATORS.register_module()
class Wrong(DiTDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels, timesteps) * float("nan")
"""


ENDLESS = """
import multiprocessing
import os
import time

from efficiency import process


def last(*arguments):
    print(os.getpid(), flush=True)
    time.sleep(600)


process._fill = last
context = multiprocessing.get_context("fork")
child = context.Process(target=process.work, args=(None, "slow", {}, 60.0, False))
child.start()
child.join()
"""


# --- Counting -------------------------------------------------------------------------------------


class Transformer:
    """The closed form of a diffusion transformer, term by term, for one sample."""

    def __init__(self, size, patch, channels, hidden, depth, tokens_more=0):
        self.patches = (size // patch) ** 2
        tokens = self.patches + tokens_more
        self.embedding = 2 * self.patches * hidden * channels * patch**2
        self.conditions = depth * 2 * hidden * 6 * hidden
        self.linears = depth * 2 * tokens * 12 * hidden**2
        self.attention = depth * 4 * tokens**2 * hidden
        self.hidden = hidden

    @property
    def body(self):
        return self.embedding + self.conditions + self.linears + self.attention


def dit(size, patch, channels, hidden, depth, **further):
    sizes = dict(input_size=size, patch_size=patch, in_channels=channels, num_classes=3)
    return dict(sizes, hidden_size=hidden, depth=depth, num_heads=2, **further)


sizes = st.tuples(
    st.sampled_from([4, 8]),
    st.sampled_from([1, 2]),
    st.integers(1, 3),
    st.just(8),
    st.integers(1, 2),
)


def counted(efficiency, generator, batch):
    with efficiency["counting"].on_meta():
        network = DiTGenerator(**generator)
        shape = (batch, *network.latent_shape)
        latents, labels = torch.randn(shape), torch.zeros(batch, dtype=torch.long)
    return efficiency["counting"].count_forward(network, latents, labels)


def final_layer(form):
    return 2 * form.hidden * 2 * form.hidden + form.embedding


@settings(max_examples=8)
@given(sizes, st.integers(1, 3))
def test_a_forward_pass_is_its_closed_form(efficiency, size, batch):
    form = Transformer(*size)

    found = counted(efficiency, dit(*size, use_timestep_src=True), batch)

    time_embedder = 2 * 256 * form.hidden + 2 * form.hidden**2
    assert found == batch * (form.body + final_layer(form) + time_embedder)


def objective_of(efficiency, **spec):
    with efficiency["counting"].on_meta():
        objective = build_objective(spec)
        objective.total_images = 1
        latents, labels = torch.randn(4, 2, 4, 4), torch.zeros(4, dtype=torch.long)
        return objective, [Minibatch(latents, labels, objective.draw(latents), 0)]


SIZE = (4, 2, 2, 8, 2)


def test_an_update_of_flow_matching_is_three_passes(efficiency):
    form = Transformer(*SIZE)
    generator = dict(type="DiTGenerator", **dit(*SIZE, use_timestep_src=True))
    objective, parts = objective_of(efficiency, type="FlowMatching", generator=generator)

    found = efficiency["counting"].count_update(objective, "generator", parts)

    forward = counted(efficiency, dit(*SIZE, use_timestep_src=True), 4)
    # Nobody asks for the gradient of latents and times, so that their first layers have none.
    assert found == 3 * forward - 4 * (form.embedding + 2 * 256 * form.hidden)


def test_an_update_of_adversarial_flow_is_the_sum_of_its_parts(efficiency):
    objective, parts = objective_of(
        efficiency,
        type="AdversarialFlow",
        generator=dict(type="DiTGenerator", **dit(*SIZE)),
        discriminator=dict(type="DiTDiscriminator", **dit(*SIZE)),
        gp_fraction=0.25,
    )
    count = efficiency["counting"].count_update
    generator = Transformer(*SIZE)
    whole_g = generator.body + final_layer(generator)
    critic = Transformer(*SIZE, tokens_more=1)
    whole_d = critic.body + 2 * critic.hidden  # Its head reads one token.

    # G once without gradient, D on real, fake and two perturbed quarters, each forward and back.
    passes = 4 + 4 + 1 + 1
    assert count(objective, "discriminator", parts) == (
        4 * whole_g + passes * (3 * whole_d - critic.embedding)
    )
    # G forward and back; D twice forward, and back to its input: not to its weights or conditions,
    # but to both factors of the products of attention.
    back = whole_d - critic.conditions + critic.attention
    assert count(objective, "generator", parts) == (
        4 * (3 * whole_g - generator.embedding + 2 * whole_d + back)
    )


def test_derivatives_of_any_order_and_direction_are_counted(efficiency):
    flops_of, on_meta = efficiency["counting"].flops_of, efficiency["counting"].on_meta
    with on_meta():
        x, weights = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
        once = 2 * 3 * 5 * 7

        def penalty():
            inputs = x.clone().requires_grad_()
            outputs = (inputs @ weights).square().sum()
            (slope,) = torch.autograd.grad(outputs, inputs, create_graph=True)
            slope.square().sum().backward()

        assert flops_of(lambda: x @ weights) == once
        assert flops_of(lambda: (x @ weights).sum().backward()) == 2 * once
        both = (x, weights.detach())  # By the rule for products, a product for each direction.
        assert flops_of(lambda: torch.func.jvp(torch.mm, both, both)) == 3 * once
        # What does not move has the direction zero, by which torch multiplies all the same.
        assert flops_of(lambda: torch.func.jvp(lambda x: x @ both[1], (x,), (x,))) == 3 * once
        assert flops_of(penalty) == 6 * once  # Forward, slope, and back through both to both.


def test_torchs_own_counter_agrees(efficiency):
    objective, parts = objective_of(
        efficiency,
        type="AdversarialFlow",
        generator=dict(type="DiTGenerator", **dit(*SIZE)),
        discriminator=dict(type="DiTDiscriminator", **dit(*SIZE)),
    )
    found = efficiency["counting"].count_update(objective, "generator", parts)

    with efficiency["counting"].on_meta(), FlopCounterMode(display=False) as counter:
        terms = objective.terms("generator", parts[0].latents, parts[0].labels, parts[0].draws)
        sum(terms.values()).backward()

    assert found == counter.get_total_flops() > 0


def count(efficiency, name, *overrides):
    subject = efficiency["subject"].subject_of(load_config(name, overrides))
    with efficiency["counting"].on_meta():
        objective = subject.build()
    return subject, objective, efficiency["contender"].count(subject, objective)


@pytest.mark.parametrize(
    ("method", "passes", "nfe"),
    [
        ("afm", 14.5, {"1": 1, "2": None, "4": None}),
        ("flow_matching", 3, {"1": 1, "2": 2, "4": 4, "8": 8}),
        ("consistency", 4, {"1": 1, "2": 2, "4": 4}),
        # The paper has 4. Here the derivative has a pass of its own, which saves memory, and torch
        # multiplies by the directions of the weights, which are zero.
        ("meanflow", 6, {"1": 1, "2": 2, "4": 4}),
        ("afm_2nfe", 14.5, {"1": None, "2": 2, "4": None}),
    ],
)
def test_a_config_is_counted_as_table_12_counts(efficiency, method, passes, nfe):
    further = ["objective.nfe=8"] if "8" in nfe else []
    _, _, entry = count(efficiency, f"{method}_digits", *further)
    flops = entry["flops"]

    assert flops["forward_passes"] == pytest.approx(passes, rel=0.06)  # Of 16 tokens, one is [CLS].
    assert flops["per_image"] == sum(flops["updates"].values())
    assert flops["sample"] == {
        n: None if times is None else times * flops["forward"] for n, times in nfe.items()
    }


def test_without_its_data_a_config_is_counted_by_the_sizes_of_its_networks(efficiency):
    _, _, entry = count(efficiency, "afm_b2", "objective.generator.depth=1")
    one, _, classifier = count(efficiency, "classifier_b2", "objective.classifier.depth=1")

    assert entry["flops"]["forward"] > 3e9
    assert classifier["flops"]["sample"] == {}
    assert list(classifier["parameters"]) == ["classifier"]
    assert (one.latent_shape, one.num_classes) == ((4, 32, 32), 1000)


# --- Memory and time ------------------------------------------------------------------------------


def test_training_memory_is_what_is_allocated(efficiency):
    subject, objective, _ = count(efficiency, "flow_matching_digits")
    batches = subject.batches(objective, 4, torch.device("meta"))
    sizes = efficiency["memory"].training_memory(
        objective, subject.run.optimizers, {"generator": batches["generator"].next()}
    )

    generator = objective.generator
    numbers = sum(p.numel() for p in generator.parameters())
    trained = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    assert sizes["networks"] == 4 * 2 * numbers  # With the average.
    assert sizes["gradients"] == 4 * trained
    assert sizes["moments"] == 2 * sizes["gradients"]
    # Each of the 4 x 16 tokens leaves at least its MLP's inner layer in each block.
    assert sizes["activations"] > 4 * (4 * 16) * 2 * 4 * 64


def plan(efficiency, smallest=4, fixed=1000, activations=400, usable=10_000, updates=1):
    return efficiency["training"].TrainingPlan(smallest, fixed, activations, usable, updates)


def gauge(efficiency, peak=1.0, patience=60.0):
    return efficiency["gauge"].Gauge(torch.device("cpu"), peak, patience)


@given(st.integers(4, 4096), st.integers(1, 20_000), st.floats(1e-3, 1e3))
def test_the_batch_is_the_largest_that_fits(efficiency, full, usable, flops):
    chosen = plan(efficiency, usable=usable)
    some = gauge(efficiency)

    batch = chosen.batch(full, flops, some)

    assert 4 <= batch <= full
    if batch > 4:
        assert chosen.memory(batch) <= usable
        assert some.seconds(batch * flops) <= 1
    if batch < full and 2 * batch <= full // 2 * 2:
        assert chosen.memory(2 * batch) > usable or some.seconds(2 * batch * flops) > 1


def test_the_best_share_that_was_seen_is_expected(efficiency):
    some = gauge(efficiency, peak=100.0)

    assert some.seconds(50) == 0.5
    assert some.see(flops=10, seconds=1) == 0.1
    assert some.seconds(50) == 5
    assert some.see(flops=20, seconds=1) == 0.2
    assert some.see(flops=10, seconds=1) == 0.1
    assert some.seconds(50) == 2.5


@pytest.fixture
def measured(efficiency, monkeypatch):
    """Measures a small contender with so much free memory, and so much patience."""

    def measure(free, patience=60.0):
        subject, objective, entry = count(efficiency, "gan_gaussians1d")
        monkeypatch.setattr(efficiency["contender"], "free_memory", lambda device: free)
        monkeypatch.setattr(efficiency["contender"], "matmul_peak", lambda device, dtype: 1e10)
        where = (torch.device("cpu"), patience)
        efficiency["contender"].measure(subject, objective, entry, where, lambda share: None)
        return entry["measured"]

    threads = torch.get_num_threads()
    yield measure
    torch.set_num_threads(threads)


def test_what_fits_is_measured(measured):
    found = measured(free=2**34)

    assert not found["update"]["computed"]
    assert not found["sample"]["1"]["computed"]
    assert found["batch"] == found["update"]["batch"] == 256
    for part in (found["update"], found["sample"]["1"]):
        assert part["reason"] is None
        assert min(part["images_per_second"], part["share_of_peak"], part["peak_memory_mib"]) > 0


@pytest.mark.parametrize("updates", [1, 16])
def test_each_update_of_the_averaged_player_is_a_batch_of_images(efficiency, updates):
    made = efficiency["training"].measure_training(
        efficiency["subject"].subject_of(load_config("gan_gaussians1d")),
        None,
        plan(efficiency, updates=updates),
        1.0,
        gauge(efficiency, peak=100.0),
    )

    assert made["computed"]
    assert made["images_per_second"] * made["seconds"] == pytest.approx(updates * made["batch"])


def test_what_does_not_fit_into_memory_is_computed(measured):
    weights = 4 * 50_000  # Of the generator, roughly.
    found = measured(free=3 * weights)

    assert found["update"]["computed"]
    assert "GiB are more than 80% of the 0.0 GiB free" in found["update"]["reason"]
    assert not found["sample"]["1"]["computed"]
    share = found["sample"]["1"]["share_of_peak"]
    assert found["update"]["share_of_peak"] >= share
    assert "of the peak, as measured" in found["update"]["reason"]

    none = measured(free=100)

    assert none["sample"]["1"]["computed"]
    assert "at least" in none["update"]["reason"]


def test_what_would_take_too_long_is_computed(measured):
    found, forward = measured(free=2**34, patience=1e-9), 115_200

    assert found["update"]["computed"]
    assert found["sample"]["1"]["computed"]
    assert found["sample"]["1"]["latency_ms"] == pytest.approx(1e3 * forward / 1e10)
    assert "would take" in found["update"]["reason"]


def test_the_cache_of_files_in_a_container_is_free(efficiency, tmp_path):
    allowed = efficiency["memory"]._allowed
    assert allowed(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert allowed(tmp_path) == 100

    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\nactive_file 50\n")

    assert allowed(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert allowed(tmp_path) is None


def test_growth_is_at_least_what_was_taken(efficiency):
    growth = efficiency["memory"].Growth(torch.device("cpu"))
    some = torch.ones(2**24)  # 64 MiB.
    del some

    assert 2**26 <= growth.bytes() + 2**20 < 2**28


# --- Processes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entries(efficiency, tmp_path_factory):
    """Contenders that work, die, compute no number, are wrong and lack their plugin."""
    plugin = tmp_path_factory.mktemp("plugin") / "deadly.py"
    plugin.write_text(DEADLY)
    small = ["objective.generator.depth=1", "objective.discriminator.depth=1"]

    def config(network="DiTDiscriminator", *overrides):
        loaded = load_config("afm_digits", [*small, *overrides]) | {"plugins": [str(plugin)]}
        loaded["objective"]["discriminator"]["type"] = network  # With the sizes of the other.
        return loaded

    configs = {
        "dies": config("Deadly"),
        "no number": config("Wrong"),
        "broken": config("DiTDiscriminator", "objective.generator.patch_size=3"),
        "not installed": config("R3GANDiscriminator"),
        "works": config(),
    }
    found, shares, ended = [], [], []
    measure = efficiency["program"].measure_contenders
    measure(configs, found, lambda name, share: shares.append((name, share)), ended.append)
    assert found == ended
    assert ("works", 0.2) in shares
    return {entry["contender"]: entry for entry in found}


def test_one_that_dies_keeps_what_was_counted_and_the_others_go_on(entries):
    assert list(entries) == ["dies", "no number", "broken", "not installed", "works"]
    dead = entries["dies"]
    assert (dead["status"], dead["reason"]) == ("failed", "The process died with status 7.")
    assert dead["flops"]["forward_passes"] > 14
    assert "does not divide" in entries["broken"]["reason"]
    assert entries["broken"]["flops"] is None
    assert entries["works"]["status"] == "done"


def test_one_whose_plugin_is_missing_is_not_run_and_told_how_to_install_it(entries):
    missing = entries["not installed"]

    assert missing["status"] == "not run"
    assert "pip install" in missing["reason"]


def test_one_that_is_measured_ends_with_the_process_that_started_it():
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "benchmarks", ROOT)))},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())

    parent.kill()

    try:
        parent.communicate(timeout=60)  # Until both have closed it.
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        raise


def test_what_is_no_number_is_a_failure_with_the_name_of_the_term(entries):
    wrong = entries["no number"]

    assert wrong["status"] == "failed"
    assert "TrainingError: discriminator/adversarial" in wrong["reason"]
    assert wrong["measured"]["sample"]["1"]["latency_ms"] > 0
    assert wrong["measured"]["update"] is None


def test_an_entry_has_the_keys_that_the_documentation_says(entries):
    entry = entries["works"]

    assert set(entry) == {"contender", "status", "reason", "parameters", "flops", "measured"}
    assert set(entry["flops"]) == {"forward", "sample", "updates", "per_image", "forward_passes"}
    measured = entry["measured"]
    assert set(measured) == {
        *("device", "threads", "dtype", "batch", "matmul_peak_flops", "sample", "update")
    }
    shared = {"images_per_second", "peak_memory_mib", "share_of_peak", "computed", "reason"}
    assert set(measured["sample"]["1"]) == {"latency_ms", "batch", *shared}
    assert set(measured["update"]) == {"seconds", "batch", *shared}
    assert measured["threads"] == 1  # As the config says.


def test_one_that_takes_too_long_is_given_up_and_ctrl_c_leaves_entries(efficiency):
    measure, found = efficiency["program"].measure_contenders, []
    measure({"slow": load_config("afm_digits")}, found, print, lambda entry: None, limit=0.01)

    assert "not done after 0.01 s" in found[0]["reason"]

    def interrupt(entry):
        raise KeyboardInterrupt

    configs = dict.fromkeys(("first", "second"), load_config("afm_digits"))
    with pytest.raises(KeyboardInterrupt):
        measure(configs, found, print, interrupt, limit=0.01)
    assert [entry["contender"] for entry in found] == ["slow", "first", "second"]
    assert (found[-1]["status"], found[-1]["reason"]) == ("not run", "interrupted")
