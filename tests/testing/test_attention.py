"""Tests for afmlib.testing.attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from afmlib.interfaces import AttentionBackend
from afmlib.testing import check_attention_backend


class Backend(AttentionBackend):
    capabilities = frozenset()

    def is_available(self, device):
        return device.type == "cpu"

    def attend(self, queries, keys, values):
        return scaled_dot_product_attention(queries, keys, values)


class Unscaled(Backend):
    def attend(self, queries, keys, values):
        return (queries @ keys.transpose(-2, -1)).softmax(-1) @ values


class WrongGradient(Backend):
    def attend(self, queries, keys, values):
        return super().attend(queries, keys.detach(), values) + 0 * keys


class SinglePrecision(Backend):
    def attend(self, queries, keys, values):
        return super().attend(queries.float(), keys.float(), values.float())


class AllTokens(Backend):
    def attend(self, queries, keys, values):
        return super().attend(queries.expand_as(keys), keys, values)


class Boastful(Backend):
    capabilities = frozenset({"telepathy"})


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Unscaled, "attention is softmax"),
        (WrongGradient, "the gradient of attention"),
        (SinglePrecision, "keeps that dtype"),
        (AllTokens, "attention of one query"),
        (Boastful, "it declares telepathy"),
    ],
)
def test_broken_backends(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_attention_backend(broken())


def test_backend_without_capabilities_passes():
    check_attention_backend(Backend())


@pytest.mark.parametrize("capability", ["double_backward", "jvp"])
def test_false_capability_is_found(capability):
    class Fused(Backend):
        capabilities = frozenset({capability})

    with pytest.raises(AssertionError, match=f"^Fused: it declares {capability}"):
        check_attention_backend(Fused())


def test_graph_break_is_found():
    class Breaks(Backend):
        capabilities = frozenset({"compile"})

        def attend(self, queries, keys, values):
            torch._dynamo.graph_break()
            return super().attend(queries, keys, values)

    with pytest.raises(AssertionError, match=r"^Breaks: it declares compile"):
        check_attention_backend(Breaks())


def test_data_dependent_branch_is_found():
    class Branches(Backend):
        capabilities = frozenset({"vmap"})

        def attend(self, queries, keys, values):
            return super().attend(queries, keys, values) if queries.sum() else queries

    with pytest.raises(AssertionError, match=r"^Branches: it declares vmap"):
        check_attention_backend(Branches())


def test_upcast_is_found():
    class Upcasts(Backend):
        capabilities = frozenset({"bf16"})

        def attend(self, queries, keys, values):
            made = super().attend(queries, keys, values)
            return made.float() if made.dtype == torch.bfloat16 else made

    with pytest.raises(AssertionError, match=r"^Upcasts: it declares bf16.*float32"):
        check_attention_backend(Upcasts())


def test_unavailable_backend_is_not_run():
    class Elsewhere(Unscaled):
        def is_available(self, device):
            return False

    check_attention_backend(Elsewhere())
