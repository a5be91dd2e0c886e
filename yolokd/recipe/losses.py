"""The section `losses` of a recipe: one class per method, and one field of `Losses` that names it everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from yolokd.recipe._config import Config, Gain, Levels
from yolokd.recipe.schedule import Schedule

Generator = Annotated[
    Literal["conv", "separable"],
    Field(
        description="What rebuilds a map: 3x3 convolutions as published, or depthwise separable ones, about six times "
        "as fast on a CPU.",
    ),
]


Average = Annotated[
    Literal["run", "batch"],
    Field(
        description="Number of positives that the loss is divided by: the average of the run, so that a batch of "
        "backgrounds counts no more than others, or the batch's own as published.",
    ),
]


class LossConfig(Config, ABC):
    """Base of the configuration of one distillation method."""

    schedule: Schedule | None = Field(
        default=None, description="Strength of this loss over the epochs, in place of the recipe's schedule."
    )

    @abstractmethod
    def gains(self) -> dict[str, Gain]:
        """Return the gain of each term, keyed by its csv column without the prefix `kd_`; 0 switches a term off."""


class BCKDConfig(LossConfig):
    """Binary classification and IoU distillation on the head (Yang et al., ICCV 2023)."""

    cls: Gain = Field(default=1.0, description="Gain of the classification term; 0 switches it off.")
    box: Gain = Field(default=4.0, description="Gain of the box term; 0 switches it off.")
    beta: float = Field(default=1.0, gt=0, description="Exponent of the score gap that weighs the classification term.")
    detach_weight: bool = Field(
        default=False, description="Stop the gradient through the classification weight; the authors' code does not."
    )
    iou: Literal["giou", "iou"] = Field(
        default="giou",
        description="Overlap in the box term: giou as in the authors' code, iou as in the paper; rotated boxes have "
        "ProbIoU.",
    )
    normalizer: Literal["positives", "target_scores"] = Field(
        default="positives",
        description="What both terms are divided by: the number of positive anchors, or the mass of their soft labels.",
    )
    average: Average = "run"

    def gains(self) -> dict[str, Gain]:
        """Return the gains of the classification and the box term."""
        return {"bckd_cls": self.cls, "bckd_box": self.box}


class SSIMConfig(LossConfig):
    """Structural similarity of neck features (de Rijk et al., NeurIPS 2022)."""

    gain: Gain = Field(default=2.0, description="Gain of the loss; 0 switches it off.")
    levels: Levels = None
    window: int = Field(
        default=11,
        ge=3,
        json_schema_extra={"not": {"multipleOf": 2}},
        description="Side of the Gaussian window in cells, odd.",
    )
    sigma: float = Field(default=1.5, gt=0, description="Standard deviation of the Gaussian window in cells.")
    normalize: Literal["image", "channel", "level"] | None = Field(
        default="image",
        description="Range that is scaled to [0, 1]: of each image, of each channel of an image, of the whole level "
        "over the batch, or null for none.",
    )

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise PydanticCustomError("rule", "must be odd")
        return window

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"ssim": self.gain}


class SAMKDConfig(LossConfig):
    """Adaptive masking of neck features at several scales, and masked logits (Zhang et al., 2025)."""

    gain: Gain = Field(default=8e-5, description="Gain of the features, a sum as in mgd; 0 switches them off.")
    levels: Levels = None
    ratio: float = Field(default=0.65, gt=0, lt=1, description="Share of cells, and of channels, that is hidden.")
    spatial: Literal["attention", "random"] = Field(
        default="attention", description="Which cells are hidden: by the teacher's attention, or at random as in mgd."
    )
    hide: Literal["important", "unimportant"] = Field(
        default="important", description="Whether attention hides what the teacher looks at most or least."
    )
    channel: bool = Field(default=True, description="Whether a second branch hides channels.")
    scales: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4), strict=False, min_length=1, description="Sides of the max-pooling windows, in cells."
    )
    generator: Generator = "conv"
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the random masks.")
    logits: Gain = Field(default=10.0, description="Gain of the masked logits; 0 switches them off.")
    logits_weight: Literal["hard", "soft"] = Field(
        default="hard", description="How anchors count by the gap between the scores: the largest share, or a softmax."
    )
    logits_ratio: float = Field(default=0.1, gt=0, le=1, description="Share of anchors that count; of hard only.")
    logits_tau: float = Field(default=0.1, gt=0, description="Temperature of the softmax over gaps; of soft only.")

    def gains(self) -> dict[str, Gain]:
        """Return the gains of the features and of the logits."""
        return {"samkd": self.gain, "samkd_logits": self.logits}


class MGDConfig(LossConfig):
    """Masked generative distillation on neck features (Yang et al., ECCV 2022)."""

    gain: Gain = Field(default=8e-5, description="Gain of the loss, a sum over channels and cells; 0 switches it off.")
    levels: Levels = None
    ratio: float = Field(default=0.65, gt=0, lt=1, description="Probability of a cell to be hidden.")
    generator: Generator = "conv"
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the random masks.")

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"mgd": self.gain}


class FGDConfig(LossConfig):
    """Focal and global distillation on neck features (Yang et al., CVPR 2022)."""

    gain: Gain = Field(
        default=1.0,
        description="Gain of the whole loss; 0 switches it off. With auto the channel attention, a term of its own, "
        "gets a gain of its own.",
    )
    levels: Levels = None
    foreground: float = Field(default=1.4e-3, ge=0, description="Weight of the cells of objects, alpha in the paper.")
    background: float = Field(default=7e-4, ge=0, description="Weight of all other cells, beta in the paper.")
    attention: float = Field(default=1.3e-3, ge=0, description="Weight of the gap of attentions, gamma in the paper.")
    relation: float = Field(default=2e-5, ge=0, description="Weight of the global context, lambda in the paper.")
    tau: float = Field(default=0.5, gt=0, description="Temperature of the attention.")

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the part with a place and of the channel attention."""
        return {"fgd": self.gain, "fgd_channel": self.gain}


class PKDConfig(LossConfig):
    """Pearson correlation of neck features (Cao et al., NeurIPS 2022)."""

    gain: Gain = Field(default=10.0, description="Gain of the loss; 0 switches it off.")
    levels: Levels = None

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"pkd": self.gain}


class CWDConfig(LossConfig):
    """Channel-wise distillation of neck features (Shu et al., ICCV 2021)."""

    gain: Gain = Field(default=5.0, description="Gain of the loss; 0 switches it off.")
    levels: Levels = None
    tau: float = Field(default=1.0, gt=0, description="Temperature of the softmax over cells.")

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"cwd": self.gain}


class LDConfig(LossConfig):
    """Localization distillation on the box distributions of the head (Zheng et al., CVPR 2022)."""

    gain: Gain = Field(default=1.5, description="Gain of the loss; 0 switches it off.")
    temperature: float = Field(default=10.0, gt=0, description="Temperature of the softmax over bins.")
    average: Average = "run"

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"ld": self.gain}


class FBKDConfig(LossConfig):
    """Attention-guided and non-local distillation of neck features (Zhang and Ma, ICLR 2021)."""

    feature: Gain = Field(default=3.9e-4, description="Gain of the attended features; 0 switches it off.")
    spatial: Gain = Field(default=0.02, description="Gain of the means over channels; 0 switches it off.")
    relation: Gain = Field(default=3.9e-4, description="Gain of the non-local relations; 0 switches it off.")
    channel: Gain = Field(default=7.2e-3, description="Gain of the means over cells; 0 switches it off.")
    levels: Levels = None
    tau: float = Field(default=0.5, gt=0, description="Temperature of the attention.")

    def gains(self) -> dict[str, Gain]:
        """Return the gains of the four terms."""
        return {
            "fbkd_feature": self.feature,
            "fbkd_spatial": self.spatial,
            "fbkd_relation": self.relation,
            "fbkd_channel": self.channel,
        }


class InstanceConfig(LossConfig):
    """Which instances of the teacher a loss compares."""

    confidence: float = Field(default=0.25, ge=0, le=1, description="Least score of the teacher's instances.")
    iou: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Overlap from which on a box counts as the same instance as a more confident one; 1 keeps all.",
    )
    instances: int = Field(
        default=32,
        ge=1,
        le=300,
        description="Largest number of instances of an image, the most confident ones; memory grows with it.",
    )


class MaskConfig(InstanceConfig):
    """Masks of the teacher's confident instances, for segment models."""

    bce: Gain = Field(default=2.0, description="Gain of the cross-entropy of the pixels; 0 switches it off.")
    dice: Gain = Field(default=2.0, description="Gain of the dice term; 0 switches it off.")

    def gains(self) -> dict[str, Gain]:
        """Return the gains of both terms."""
        return {"mask_bce": self.bce, "mask_dice": self.dice}


class KeypointConfig(InstanceConfig):
    """Keypoints of the teacher's confident instances, for pose models."""

    oks: Gain = Field(default=4.0, description="Gain of the distance by object keypoint similarity; 0 switches it off.")
    visibility: Gain = Field(
        default=0.5,
        description="Gain of the cross-entropy of the keypoints' visibility; 0 switches it off, as keypoints without "
        "one (kpt_shape of two columns) need.",
    )

    def gains(self) -> dict[str, Gain]:
        """Return the gains of both terms."""
        return {"keypoint_oks": self.oks, "keypoint_visibility": self.visibility}


class SoftConfig(LossConfig):
    """Stored answers of the teacher as soft labels of the student's own assignment."""

    cls: Gain = Field(default=0.5, description="Gain of the classification term, Ultralytics' own; 0 switches it off.")
    box: Gain = Field(default=7.5, description="Gain of the box term, Ultralytics' own; 0 switches it off.")

    def gains(self) -> dict[str, Gain]:
        """Return the gains of both terms."""
        return {"soft_cls": self.cls, "soft_box": self.box}


class UltralyticsConfig(LossConfig):
    """Score-weighted L2 on neck features, the distillation loss that Ultralytics itself ships."""

    gain: Gain = Field(default=6.0, description="Gain of the loss, Ultralytics' own argument dis; 0 switches it off.")
    levels: Levels = None

    def gains(self) -> dict[str, Gain]:
        """Return the gain of the only term."""
        return {"ultralytics": self.gain}


class Losses(Config):
    """Distillation losses by method; none at all is plain training."""

    bckd: BCKDConfig | None = Field(default=None, description="Binary classification and IoU distillation on the head.")
    ssim: SSIMConfig | None = Field(default=None, description="Structural similarity of neck features.")
    samkd: SAMKDConfig | None = Field(default=None, description="Adaptive masking at several scales, masked logits.")
    mgd: MGDConfig | None = Field(default=None, description="Masked generative distillation of neck features.")
    fgd: FGDConfig | None = Field(default=None, description="Focal and global distillation of neck features.")
    pkd: PKDConfig | None = Field(default=None, description="Pearson correlation of neck features.")
    cwd: CWDConfig | None = Field(default=None, description="Channel-wise distillation of neck features.")
    ld: LDConfig | None = Field(default=None, description="Localization distillation on the head's box distributions.")
    fbkd: FBKDConfig | None = Field(default=None, description="Attention-guided and non-local distillation.")
    mask: MaskConfig | None = Field(default=None, description="Masks of the teacher's confident instances.")
    keypoint: KeypointConfig | None = Field(default=None, description="Keypoints of the teacher's confident instances.")
    soft: SoftConfig | None = Field(default=None, description="Stored answers of the teacher as soft labels.")
    ultralytics: UltralyticsConfig | None = Field(default=None, description="The loss that Ultralytics itself ships.")

    def items(self) -> Iterator[tuple[str, LossConfig]]:
        """Yield name and configuration of each method that the recipe gives, in the order of declaration."""
        for name in type(self).model_fields:
            config = getattr(self, name)
            if config is not None:
                yield name, config

    def terms(self) -> dict[str, Gain]:
        """Return the gains of all terms of all methods, keyed by csv column without the prefix `kd_`."""
        return {term: gain for _, config in self.items() for term, gain in config.gains().items()}
