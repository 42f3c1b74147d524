"""Configuration: frozen dataclasses, read from YAML, overridden by dotted flags, every error naming its key."""

from robpicker_jax.config.data_sections import (
    ALL_CLASSES,
    MAX_SPECIES,
    CopickConfig,
    DataConfig,
    LabelNoiseConfig,
    SimulationConfig,
    Species,
    SplitsConfig,
)
from robpicker_jax.config.loading import (
    apply_overrides,
    as_plain_values,
    config_folder,
    config_of,
    default_config_path,
    describe_fields,
    dump_config,
    load_config,
    validated,
)
from robpicker_jax.config.network_section import ModelConfig
from robpicker_jax.config.picking_sections import EvaluationConfig, InferenceConfig, PickingConfig
from robpicker_jax.config.radii import with_radii
from robpicker_jax.config.schema import Config
from robpicker_jax.config.training_sections import (
    META_NETWORKS,
    CorruptionConfig,
    OptimizerConfig,
    ParallelConfig,
    PatchConfig,
    TrainConfig,
)

__all__ = [
    "ALL_CLASSES",
    "MAX_SPECIES",
    "META_NETWORKS",
    "Config",
    "CopickConfig",
    "CorruptionConfig",
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
    "SplitsConfig",
    "TrainConfig",
    "apply_overrides",
    "as_plain_values",
    "config_folder",
    "config_of",
    "default_config_path",
    "describe_fields",
    "dump_config",
    "load_config",
    "validated",
    "with_radii",
]
