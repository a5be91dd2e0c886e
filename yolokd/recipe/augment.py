"""The section `augment` of a recipe: changes to the images that serve the distillation."""

from __future__ import annotations

from pydantic import Field

from yolokd.recipe._config import Config, Gain


class IKDAdversarialConfig(Config):
    """Features on an adversarial example of the batch, a term of its own.

    Its gain is a number, not auto: adversarial examples have a pass of their own, whose features the detection loss
    never sees.
    """

    gain: float = Field(
        default=4e-5, ge=0, description="Gain of the term ikd, a sum over channels and cells; 0 switches it off."
    )
    eps: float = Field(default=8.0, gt=0, description="Largest change of a pixel's value, in 1/255.")
    step: float = Field(default=2.0, gt=0, description="Change per step of the attack, in 1/255.")
    steps: int = Field(default=5, ge=1, description="Steps of the attack; each is a pass of the teacher and back.")
    every: int = Field(
        default=4, ge=1, description="Batches to one adversarial example, where the gain then counts as many times."
    )


class IKDConfig(Config):
    """Augmentation by the size of an image's objects, and adversarial examples (Liang et al., ACM MM 2023)."""

    noise: float = Field(
        default=0.3, ge=0, le=1, description="Probability of noise on an image whose objects are all small."
    )
    crop: float = Field(
        default=0.8, gt=0, le=1, description="Smallest share of a side that the crop of any other image keeps."
    )
    adversarial: IKDAdversarialConfig | None = Field(
        default_factory=IKDAdversarialConfig,
        description="Adversarial examples of the batch; null leaves them out.",
    )
    until: float = Field(default=0.67, gt=0, le=1, description="Share of the epochs after which all of it is off.")


class Augment(Config):
    """Changes to the images, by method."""

    ikd: IKDConfig | None = Field(default=None, description="Augmentation by object size, and adversarial examples.")

    @property
    def adversarial(self) -> IKDAdversarialConfig | None:
        """The section on adversarial examples; None without."""
        return None if self.ikd is None else self.ikd.adversarial

    def terms(self) -> dict[str, Gain]:
        """Return the gain of the term on adversarial examples, `ikd`; nothing without."""
        return {} if self.adversarial is None else {"ikd": self.adversarial.gain}
