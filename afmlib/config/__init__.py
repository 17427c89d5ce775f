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
    "check_protocol",
    "config_names",
    "dump",
    "images_config",
    "load_config",
    "load_protocol",
    "with_data_arguments",
    "with_defaults",
]

from afmlib.config.check import check_config, check_evaluation, check_protocol
from afmlib.config.compose import config_names, load_config, load_protocol
from afmlib.config.data_arguments import with_data_arguments
from afmlib.config.defaults import with_defaults
from afmlib.config.own_images import images_config
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
