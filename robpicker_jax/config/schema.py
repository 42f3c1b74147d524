"""The configuration as frozen dataclasses: one class a section, one line of help a field.

The sections lie by subject in `data_sections.py`, `network_section.py`, `training_sections.py` and `picking_sections.py`.
Names carry units. Arrays are (z, y, x); `*_zyx` fields follow that order.
Checks that involve several fields live in `validation.py`; reading and overriding in `loading.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict

from robpicker_jax.config.data_sections import DataConfig, LabelNoiseConfig, SimulationConfig
from robpicker_jax.config.field_types import STRICT
from robpicker_jax.config.network_section import ModelConfig
from robpicker_jax.config.picking_sections import EvaluationConfig, InferenceConfig, PickingConfig
from robpicker_jax.config.training_sections import ParallelConfig, PatchConfig, TrainConfig


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    data: DataConfig = field(default_factory=DataConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    label_noise: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    picking: PickingConfig = field(default_factory=PickingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
