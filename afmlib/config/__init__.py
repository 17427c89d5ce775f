"""Configurations: YAML read as data, composed, overridden and checked before anything is built."""

__all__ = [
    "AutomaticPhases",
    "ConfigError",
    "EMAConfig",
    "EvaluationConfig",
    "FixedPhase",
    "InitConfig",
    "LearningRateFactor",
    "LogConfig",
    "OptimizerConfig",
    "RunConfig",
    "check_config",
    "check_evaluation",
    "config_names",
    "dump",
    "load_config",
    "with_data_arguments",
]

from afmlib.config.check import check_config, check_evaluation
from afmlib.config.compose import config_names, load_config
from afmlib.config.data_arguments import with_data_arguments
from afmlib.config.phases import AutomaticPhases, FixedPhase, LearningRateFactor
from afmlib.config.schema import (
    EMAConfig,
    EvaluationConfig,
    InitConfig,
    LogConfig,
    OptimizerConfig,
    RunConfig,
)
from afmlib.config.yaml_files import ConfigError, dump
