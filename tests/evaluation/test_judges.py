"""Tests for afmlib.evaluation.judges."""

from afmlib.config import EvaluationConfig
from afmlib.evaluation.judges import judges_of
from afmlib.evaluation.protocol import EvalProtocol

NESTED = {"type": "Mine", "terms": [{"features": {"type": "DigitsExtractor"}}, 0.5, None]}


def test_nested_extractors_are_found():
    in_metric = {"type": "FrechetRatio", "representations": ["DigitsExtractor"]}

    assert judges_of(NESTED, EvaluationConfig(extractor="DigitsExtractor")) == ("DigitsExtractor",)
    assert judges_of(NESTED, EvaluationConfig(metrics=[in_metric])) == ("DigitsExtractor",)
    assert judges_of(NESTED, EvaluationConfig(extractor="InceptionExtractor")) == ()
    assert judges_of(None, EvaluationConfig(extractor="DigitsExtractor")) == ()


def test_such_numbers_have_a_protocol_of_their_own():
    clean, trained = (
        EvalProtocol("digits-1", ["FrechetDistance"], 100, judge_in_training=names)
        for names in ((), ["DigitsExtractor"])
    )

    assert clean != trained
    assert "judge_in_training" not in clean.as_dict()
    assert trained.as_dict()["judge_in_training"] == ["DigitsExtractor"]
    assert EvalProtocol(**trained.as_dict()) == trained
