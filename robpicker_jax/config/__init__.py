"""Configuration: frozen dataclasses, read from YAML, overridden by dotted flags, every error naming its key."""

from robpicker_jax.config.loading import (
    apply_overrides,
    config_folder,
    default_config_path,
    describe_fields,
    dump_config,
    load_config,
)
from robpicker_jax.config.schema import (
    META_NETWORKS,
    Config,
    DataConfig,
    EvaluationConfig,
    InferenceConfig,
    LabelNoiseConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PatchConfig,
    PickingConfig,
    SimulationConfig,
    Species,
    TrainConfig,
)

__all__ = [
    "META_NETWORKS",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "InferenceConfig",
    "LabelNoiseConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PatchConfig",
    "PickingConfig",
    "SimulationConfig",
    "Species",
    "TrainConfig",
    "apply_overrides",
    "config_folder",
    "default_config_path",
    "describe_fields",
    "dump_config",
    "load_config",
]
