"""Tests for benchmarks/efficiency: counts against closed forms, measurements by their laws."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from afmlib import build_objective
from afmlib.config import load_config
from afmlib.derivatives import ForwardModeJVP
from afmlib.networks.dit import DiTGenerator
from benchmarks.contenders import parse_contender
from benchmarks.efficiency import counting, measuring, program
from benchmarks.efficiency.counting import count_forward, count_updates, flops_of, on_meta
from benchmarks.efficiency.measuring import GIB, Meter, UnmeasuredError
from benchmarks.efficiency.workload import Workload, training_step

# --- Counting -------------------------------------------------------------------------------------


class Transformer:
    """The closed form of a diffusion transformer, term by term, for one sample.

    With a [CLS] token, the last block is computed for that token only, except keys and values.
    """

    def __init__(self, size, patch, channels, hidden, depth, cls_token=False):
        self.patches = (size // patch) ** 2
        tokens = self.patches + cls_token
        self.embedding = 2 * self.patches * hidden * channels * patch**2
        self.conditions = depth * 2 * hidden * 6 * hidden
        self.linears = depth * 2 * tokens * 12 * hidden**2
        self.attention = depth * 4 * tokens**2 * hidden
        if cls_token:
            self.linears -= 2 * (tokens - 1) * 10 * hidden**2
            self.attention -= 4 * (tokens - 1) * tokens * hidden
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


def counted(generator, batch):
    with on_meta():
        network = DiTGenerator(**generator)
        shape = (batch, *network.latent_shape)
        latents, labels = torch.randn(shape), torch.zeros(batch, dtype=torch.long)
    return count_forward(network, latents, labels)


def final_layer(form):
    return 2 * form.hidden * 2 * form.hidden + form.embedding


@settings(max_examples=8)
@given(sizes, st.integers(1, 3))
def test_forward_matches_closed_form(size, batch):
    form = Transformer(*size)

    found = counted(dit(*size, use_timestep_src=True), batch)

    time_embedder = 2 * 256 * form.hidden + 2 * form.hidden**2
    assert found == batch * (form.body + final_layer(form) + time_embedder)


SHAPE = (2, 4, 4)


def objective_of(**spec):
    with on_meta():
        objective = build_objective(spec)
    objective.total_images = 1
    return objective


SIZE = (4, 2, 2, 8, 2)


def test_flow_matching_update_is_three_passes():
    form = Transformer(*SIZE)
    generator = dict(type="DiTGenerator", **dit(*SIZE, use_timestep_src=True))
    objective = objective_of(type="FlowMatching", generator=generator)

    found = count_updates(objective, 4, SHAPE)["generator"]

    forward = counted(dit(*SIZE, use_timestep_src=True), 4)
    # Nobody asks for the gradient of latents and times, so that their first layers have none.
    assert found == 3 * forward - 4 * (form.embedding + 2 * 256 * form.hidden)


def test_adversarial_flow_update_matches_closed_form():
    objective = objective_of(
        type="AdversarialFlow",
        generator=dict(type="DiTGenerator", **dit(*SIZE)),
        discriminator=dict(type="DiTDiscriminator", **dit(*SIZE)),
        gp_fraction=0.25,
    )
    generator = Transformer(*SIZE)
    whole_g = generator.body + final_layer(generator)
    critic = Transformer(*SIZE, cls_token=True)
    whole_d = critic.body + 2 * critic.hidden  # Its head reads one token.

    # G once without gradient, D on real, fake and two perturbed quarters, each forward and back.
    passes = 4 + 4 + 1 + 1
    assert count_updates(objective, 4, SHAPE)["discriminator"] == (
        4 * whole_g + passes * (3 * whole_d - critic.embedding)
    )
    # G forward and back; D twice forward, and back to its input: not to its weights or conditions,
    # but to both factors of the products of attention.
    back = whole_d - critic.conditions + critic.attention
    assert count_updates(objective, 4, SHAPE)["generator"] == (
        4 * (3 * whole_g - generator.embedding + 2 * whole_d + back)
    )


def test_counts_jvp_and_double_backward():
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
        layer = torch.nn.Linear(5, 7)  # The library's forward mode multiplies by what moves.
        assert flops_of(lambda: ForwardModeJVP()(layer, (x,), (x,))) == 2 * once
        assert flops_of(penalty) == 6 * once  # Forward, slope, and back through both to both.


def test_torch_counter_agrees():
    generator = dict(type="DiTGenerator", **dit(*SIZE, use_timestep_src=True))
    objective = objective_of(type="FlowMatching", generator=generator)
    found = count_updates(objective, 4, SHAPE)["generator"]

    given = counting.random_batch(objective, 4, SHAPE)
    with on_meta(), FlopCounterMode(display=False) as counter:
        counting.update_of(objective, "generator", given)().backward()

    assert found == counter.get_total_flops() > 0


def count(name, *overrides):
    workload = Workload.of(load_config(name, overrides))
    objective = counting.blueprint(workload)
    return workload, objective, counting.count(workload, objective)


@pytest.mark.parametrize(
    ("method", "passes", "nfe"),
    [
        # The paper has 14.5. Here D's last block, one of a few, is computed for one token only.
        ("afm", 10.8, {"1": 1, "2": None, "4": None}),
        # G's pass and the real logits of one update serve the other: 11.4 with whole blocks of D.
        ("afm_lean", 8.4, {"1": 1, "2": None, "4": None}),
        ("flow_matching", 3, {"1": 1, "2": 2, "4": 4, "8": 8}),
        ("consistency", 4, {"1": 1, "2": 2, "4": 4}),
        # The paper has 4. Here the derivative is a separate pass of a quarter of the batch, at
        # twice the cost.
        ("meanflow", 3.5, {"1": 1, "2": 2, "4": 4}),
        ("scm", 5, {"1": 1, "2": 2, "4": 4}),
        # Forward 1.5 and backward 3 of three blocks instead of two; the derivative of half of the
        # batch, and the velocity that is its direction.
        ("imf", 6, {"1": 1, "2": 2, "4": 4}),
        ("alphaflow", 3, {"1": 1, "2": 2, "4": 4}),
        ("soflow", 3.25, {"1": 1, "2": 2, "4": 4}),
        ("tvm", 11.9, {"1": 1, "2": 2, "4": 4}),
        # 16 updates of D, each with a JVP in two directions and its gradient.
        ("cafm", 135.7, {"1": 1, "2": 2, "4": 4, "50": 50}),
        ("imm", 4, {"1": 1, "2": 2, "4": 4}),
        # With the passes of a classifier of the digits, whose weights have no gradient.
        ("transport", 3.3, {"1": 1, "2": None, "4": None}),
        ("frechet_loss", 3.2, {"1": 1, "2": None, "4": None}),
        ("afm_2nfe", 10.8, {"1": None, "2": 2, "4": None}),
    ],
)
def test_configs_match_table_12(method, passes, nfe):
    further = ["objective.nfe=8"] if "8" in nfe else []
    _, _, entry = count(f"{method}_digits", *further)
    flops = entry["flops"]

    assert flops["forward_passes"] == pytest.approx(passes, rel=0.06)  # Of 16 tokens, one is [CLS].
    updates = {"discriminator": 16} if method == "cafm" else {}
    assert flops["per_image"] == sum(
        updates.get(player, 1) * number for player, number in flops["updates"].items()
    )
    assert flops["sample"] == {
        n: None if times is None else times * flops["forward"] for n, times in nfe.items()
    }


def rows_of_the_page():
    """Returns the numbers of the column of this library, by method."""
    page = (
        (Path(__file__).parents[2] / "docs/benchmarks.md")
        .read_text()
        .split("| method | paper | here |")[1]
    )
    rows = [line.split("|")[1:4] for line in page.splitlines()[2:] if line.startswith("|")]
    return {name.strip(): here.strip() for name, _, here in rows}


@pytest.mark.parametrize(
    ("row", "config", "overrides"),
    [
        ("flow matching", "flow_matching_digits", []),
        ("MeanFlow", "meanflow_digits", []),
        ("iMF", "imf_digits", []),
        ("AlphaFlow, at first", "alphaflow_digits", ["objective.alpha=1.0"]),
        ("AlphaFlow, at half of the run", "alphaflow_digits", ["objective.alpha=0.5"]),
        ("AlphaFlow, at last", "alphaflow_digits", ["objective.alpha=0.0"]),
        ("SoFlow", "soflow_digits", []),
        ("TVM", "tvm_digits", []),
        ("IMM", "imm_digits", []),
        ("feature transport", "transport_digits", []),
        ("Fréchet loss", "frechet_loss_digits", []),
        ("CAFM", "cafm_digits", []),
        ("AFM", "afm_digits", []),
    ],
)
def test_page_has_the_counted_passes(row, config, overrides):
    _, _, entry = count(config, *overrides)
    assert f"{entry['flops']['forward_passes']:.1f}" == rows_of_the_page()[row]


def test_counts_conditions_and_guidance():
    """With guidance iMF predicts two velocities of the whole batch, instead of one of a half."""
    both = [
        count("imf_digits", "objective.generator.class_dropout_prob=0.1", *more)[2]["flops"]
        for more in ([], ["objective.generator.num_conditions=3", "objective.max_omega=8.0"])
    ]
    plain, guided = (flops["forward_passes"] for flops in both)
    assert guided - plain == pytest.approx(1.5, rel=0.1)


def test_missing_data_of_an_objective_are_random():
    missing = {"type": "LatentFolder", "path": "nowhere"}
    config = load_config("frechet_loss_b2", ["objective.generator.depth=1"])
    config["objective"]["data"] = missing
    workload = Workload.of(config)

    counted = counting.count(workload, counting.blueprint(workload))

    assert counted["flops"]["forward_passes"] > 3


def test_counts_without_data():
    _, _, entry = count("afm_b2", "objective.generator.depth=1")
    one, _, classifier = count("classifier_b2", "objective.classifier.depth=1")

    assert entry["flops"]["forward"] > 3e9
    assert classifier["flops"]["sample"] == {}
    assert list(classifier["parameters"]) == ["classifier"]
    assert (one.latent_shape, one.num_classes) == ((4, 32, 32), 1000)


# --- Measuring ------------------------------------------------------------------------------------


def test_training_memory_is_weights_gradients_moments_activations():
    workload, objective, _ = count("flow_matching_digits")
    generator = objective.generator
    numbers = sum(p.numel() for p in generator.parameters())
    trained = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    fixed = 4 * (2 * numbers + 3 * trained)  # With the EMA.

    small, large = (measuring.training_memory(workload, objective, n) - fixed for n in (4, 8))

    # Each of the 4 x 16 tokens keeps at least its MLP's inner layer in each block.
    assert small > 4 * (4 * 16) * 2 * 4 * 64
    assert large == pytest.approx(2 * small, rel=0.05)


def meter(peak=100.0, patience=60.0, usable=GIB):
    return Meter(torch.device("cpu"), peak, patience, usable)


def test_meter_expects_the_best_speed_so_far():
    some = meter()

    assert some.expect(50) == 0.5
    assert some.share(flops=10, seconds=1) == 0.1
    assert some.expect(50) == 5
    assert some.share(flops=20, seconds=1) == 0.2
    assert some.share(flops=10, seconds=1) == 0.1
    assert some.expect(50) == 2.5


@pytest.mark.parametrize(
    ("needed", "flops", "message"),
    [(2 * GIB, 1, "it needs 2.0 GiB, more than 80%"), (1, 6001, "it would take at least 60 s")],
)
def test_meter_says_why_something_is_not_measured(needed, flops, message):
    meter().require("it", GIB, 6000)

    with pytest.raises(UnmeasuredError, match=message):
        meter().require("it", needed, flops)


@pytest.fixture
def measured(monkeypatch):
    """Measures a small contender with so much free memory, and so much patience."""

    def measure(free=2**34, patience=60.0):
        workload, objective, entry = count("gan_gaussians1d")
        monkeypatch.setattr(measuring, "free_memory", lambda device: free)
        monkeypatch.setattr(measuring, "matmul_peak", lambda device, dtype: 1e10)
        measuring.measure(workload, objective, entry, patience, lambda share: None)
        return entry["measured"]

    threads = torch.get_num_threads()
    yield measure
    torch.set_num_threads(threads)


def test_measures_samples_and_training(measured):
    found = measured()

    assert found["threads"] == 1  # As the config says.
    assert found["batch"] == found["update"]["batch"] == 256
    for part in (found["update"], found["sample"]["1"]):
        assert part["reason"] is None
        assert min(part["images_per_second"], part["share_of_peak"], part["peak_memory_mib"]) > 0
    assert found["update"]["images_per_second"] * found["update"]["seconds"] == pytest.approx(256)


@pytest.mark.parametrize(
    ("limits", "sample_is_measured", "reason"),
    [
        ({"free": 12 * 50_000}, True, "more than 80% of the free 0.0 GiB"),  # Thrice its weights.
        ({"free": 100}, False, "more than 80% of the free 0.0 GiB"),
        ({"patience": 1e-9}, False, "would take at least"),
    ],
)
def test_no_number_for_what_is_not_measured(measured, limits, sample_is_measured, reason):
    found = measured(**limits)

    update, sample = found["update"], found["sample"]["1"]
    assert update["seconds"] is update["images_per_second"] is update["batch"] is None
    assert reason in update["reason"]
    assert (sample["latency_ms"] is not None) == sample_is_measured


def test_each_update_of_the_generator_sees_its_own_batch(monkeypatch):
    workload, objective, entry = count("gan_gaussians1d")
    monkeypatch.setattr(measuring, "training_step", lambda *_: None)
    monkeypatch.setattr(measuring, "median_seconds", lambda *_: 2.0)
    twice = SimpleNamespace(
        players={"generator": 2}, ema_player="generator", parameters=list, buffers=list
    )

    made = measuring.measure_training(workload, twice, objective, 1.0, meter(peak=1e9))

    assert made["images_per_second"] == 2 * 256 / 2.0
    assert entry["flops"]["per_image"] > 0


def test_training_step_trains(measured):
    workload, _, _ = count("gan_gaussians1d")
    objective = workload.build()
    before = [p.clone() for p in objective.generator.parameters()]

    training_step(workload, objective, 8, torch.device("cpu"))()

    assert any(
        not torch.equal(p, old)
        for p, old in zip(objective.generator.parameters(), before, strict=True)
    )


def test_cached_files_of_a_container_are_free(tmp_path):
    allowed = measuring.free_in_container
    assert allowed(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert allowed(tmp_path) == 100

    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\nactive_file 50\n")

    assert allowed(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert allowed(tmp_path) is None


def test_growth_is_at_least_what_was_allocated():
    growth = measuring.Growth(torch.device("cpu"))
    some = torch.ones(2**24)  # 64 MiB.
    del some

    assert 2**26 <= growth.bytes() + 2**20 < 2**28


# --- The program ----------------------------------------------------------------------------------


class QuietConsole:
    """Stands in for progress."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, *_):
        pass

    def end(self, *_):
        pass


def test_time_limit_and_ctrl_c_leave_entries(monkeypatch):
    monkeypatch.setattr(program, "TaskProgress", QuietConsole)
    contenders = [parse_contender(name) for name in ("afm_digits", "gan_digits")]
    found = []
    program.measure_efficiency(contenders[:1], (), found, None, 60.0, limit=0.01)
    assert "not done after 0.01 s" in found[0]["reason"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(QuietConsole, "end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        program.measure_efficiency(contenders, (), found, None, 60.0, limit=0.01)
    assert [entry["contender"] for entry in found] == ["afm_digits", "gan_digits"]
    assert (found[1]["status"], found[1]["reason"]) == ("not run", "interrupted")


def test_missing_plugin_is_not_run():
    sent = []
    contender = parse_contender("r3gan_digits")

    program.work(SimpleNamespace(send=sent.append), contender, (), 60.0, False)

    ((is_done, _, entry),) = sent
    assert is_done
    assert entry["status"] == "not run"
    assert "pip install" in entry["reason"]
