"""Configurations: YAML read as data, composed, overridden and checked before anything is built."""

__all__ = [
    "AutomaticPhases",
    "ConfigError",
    "EMAConfig",
    "EvaluationConfig",
    "FixedPhase",
    "InitConfig",
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
from afmlib.config.schema import (
    AutomaticPhases,
    EMAConfig,
    EvaluationConfig,
    FixedPhase,
    InitConfig,
    LogConfig,
    OptimizerConfig,
    RunConfig,
)
from afmlib.config.yaml_files import ConfigError, dump
