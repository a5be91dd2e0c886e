"""The plans of the study: which recipes, changed how, on how many labels, for how long. `study.py` carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

BATCH = 16
SIZE = 128  # pixels

# Every optimization step counts where so few can be had, so no accumulation: nbs is the batch.
COMMON = ["optimizer=AdamW", f"nbs={BATCH}", "cache=ram", "plots=false", "workers=0"]
STUDENT = [*COMMON, "lr0=2e-3", "close_mosaic=10", "val=false"]
NO_BIAS_WARMUP = [*STUDENT, "warmup_bias_lr=0"]  # as with Ultralytics' automatic optimizer; else biases start at 0.1
# A trained student goes on as with Ultralytics' automatic optimizer, whose rate is 1.1e-3 for five classes.
FINETUNE = [*COMMON, "lr0=1e-3", "close_mosaic=5", "val=false", "warmup_epochs=1", "warmup_bias_lr=0"]
TEACHER = [*COMMON, "lr0=5e-4", "close_mosaic=5", "warmup_epochs=1", "warmup_bias_lr=0", "patience=0"]


@dataclass(frozen=True)
class Arm:
    """A recipe of the study: a shipped one, changed."""

    recipe: str
    changes: Sequence[str] = ()
    unlabeled: str | None = None  # which images come without labels: "streets", or the "rest" of the labeled ones


@dataclass(frozen=True)
class Tuning:
    """How a teacher is fine-tuned."""

    imgsz: int = SIZE
    settings: Sequence[str] = field(default_factory=lambda: TEACHER)
    changes: Sequence[str] = ()  # of the recipe, beside settings of the training


@dataclass(frozen=True)
class Plan:
    """One table."""

    arms: Mapping[str, Arm]
    seeds: Sequence[int]
    epochs: int
    half: str  # what is scored: the "tune" or the "report" images
    labels: float = 1.0  # share of the training images that keep their labels
    teacher_epochs: int = 20
    teacher: str = "yolov8n-coco-s128"  # these weights, fine-tuned on the same labels, or with 0 epochs as they come
    tuning: Tuning = Tuning()  # how it is fine-tuned
    student: str = ""  # these weights as they come; "" is width 0.125 from scratch
    student_epochs: int = 0  # of plain training before the comparison; all arms and seeds start from its weights
    settings: Sequence[str] = field(default_factory=lambda: STUDENT)
    imgsz: int = SIZE  # of the students


def bckd(cls: float, box: float, *more: str) -> Arm:
    """BCKD with other gains."""
    return Arm("bckd", [f"losses.bckd.cls={cls}", f"losses.bckd.box={box}", *more])


def ssim(*more: str) -> Arm:
    """SSIM without the warm-up that this study found for it."""
    return Arm("ssim", ["losses.ssim.schedule=null", *more])


# The teacher answers once per image, at three times the students' size and mirrored as well.
MAPPED = "teacher.classes={motorcycle: motorbike}"
ANSWERS = ["teacher.imgsz=384", MAPPED]


def pseudo(unlabeled: str, *more: str) -> Arm:
    """Pseudo-labels on images without labels."""
    return Arm("pseudo", [*ANSWERS, *more], unlabeled=unlabeled)


DOUBLE = bckd(8, 32, "teacher.scale=2", MAPPED)  # live, at 256 px
LIVE = Arm("bckd", [*DOUBLE.changes, "train.pseudo_labels=true"], unlabeled="rest")  # its confident boxes as labels too
THREE = "teacher.models=[{weights}/yolov8n-coco.pt, {weights}/yolo26n-coco.pt]"  # beside the plan's own teacher

METHODS = {
    "ultralytics": Arm("ultralytics"),
    "bckd_2_8": bckd(2, 8),
    "bckd_8_32": bckd(8, 32),
    "ssim_2": ssim(),
    "ssim_20": ssim("losses.ssim.gain=20"),
    "samkd_2": Arm("samkd", ["losses.samkd.logits=2"]),
    "samkd_10": Arm("samkd", ["losses.samkd.logits=10"]),
    "ikd": Arm("ikd"),
    "aid_05": Arm("aid"),
    "aid_20": Arm("aid", ["balance.share=0.2"]),
    "ssim_05": ssim("losses.ssim.gain=0.5"),
    "ssim_early": ssim("schedule.until=0.5"),
    "ssim_late": ssim("schedule.warmup=40"),
    "ikd_3": Arm("ikd", ["losses.fgd.gain=3"]),
    "aid_50": Arm("aid", ["balance.share=0.5"]),
    "ikd_late": Arm("ikd", ["schedule.warmup=40"]),
    "aid_late": Arm("aid", ["balance.share=0.2", "schedule.warmup=40"]),
}
INIT = "student.init=teacher"
METHODS_INIT = {
    "init": bckd(0, 0, INIT),
    "bckd_8_32": bckd(8, 32, INIT),
    "ssim_2": ssim(INIT),
    "ssim_05": ssim("losses.ssim.gain=0.5", INIT),
    "samkd_2": Arm("samkd", ["losses.samkd.logits=2", INIT]),
    "ikd": Arm("ikd", [INIT]),
    "aid_05": Arm("aid", [INIT]),
}
UNLABELED = {
    "init": bckd(0, 0, INIT),
    "best": Arm("best"),
    "best_unlabeled": Arm("best", unlabeled="streets"),
    "best_rest": Arm("best", unlabeled="rest"),
}
FEW = Plan(UNLABELED, seeds=range(3), epochs=60, half="report", labels=0.1, teacher_epochs=60)
TRAINED = Plan(
    {"bckd_2_8": bckd(2, 8), "bckd_8_32": bckd(8, 32)},
    seeds=range(3),
    epochs=20,
    half="report",
    student_epochs=100,
    settings=FINETUNE,
)
CONTROL = Plan(
    {
        "ultralytics": Arm("ultralytics"),
        "init": bckd(0, 0, INIT),
        "best": Arm("best"),
        "bckd": bckd(8, 32),
        "ssim": Arm("ssim"),
        "samkd": Arm("samkd"),
        "ikd": Arm("ikd", ["schedule.warmup=20"]),
        "aid": Arm("aid"),
        "bckd_ssim": Arm("bckd_ssim"),
        "bckd_aid": bckd(8, 32, "weighting.aid.alpha=0.1"),
        "best_unlabeled": Arm("best", unlabeled="streets"),
    },
    seeds=range(5),
    epochs=30,
    half="report",
)
PRETRAINED = Plan(
    {
        "bckd": bckd(8, 32),
        "bckd_rest": Arm("bckd", bckd(8, 32).changes, unlabeled="rest"),
        "ultralytics": Arm("ultralytics"),
        "bckd_streets": Arm("bckd", bckd(8, 32).changes, unlabeled="streets"),
    },
    seeds=range(3),
    epochs=144,  # of 5 steps: 720
    half="report",
    labels=0.1,
    teacher="yolo11n-coco-s128",
    teacher_epochs=100,
    student="yolov8n-coco-s128",
    settings=FINETUNE,
)
FOOTAGE = replace(
    PRETRAINED,
    arms={
        "pseudo": pseudo("rest"),
        "pseudo_streets": pseudo("streets"),
        "pseudo_soft": pseudo("rest", "losses={soft: {}}"),
        "pseudo_three": pseudo("rest", THREE),
        "bckd_2x": DOUBLE,
        "pseudo_2x": LIVE,
        "bckd": bckd(8, 32, MAPPED),
        "ultralytics": Arm("ultralytics", [MAPPED]),
    },
    epochs=60,  # of 5 steps: 300
    teacher="yolo11n-coco",
    teacher_epochs=0,
    settings=[*FINETUNE, "lr0=3e-4"],  # of 1e-4, 3e-4 and 1e-3 the best for pseudo-labels on the tuning images
)
# The same under a teacher that has learned from the labels that there are, at the size at which it answers.
OWN_CLASSES = ["student.init=classes", "student.classes={motorcycle: motorbike}"]
TAUGHT = replace(
    FOOTAGE,
    arms={"pseudo": Arm("pseudo", ["teacher.imgsz=384"], unlabeled="rest")},
    teacher_epochs=40,  # of 5 steps
    tuning=Tuning(384, [*FINETUNE, "lr0=1e-4"], OWN_CLASSES),
)
# The methods that have shown no gain from scratch, on a pretrained student: the tuning images, one seed.
CANDIDATES = replace(
    FOOTAGE,
    arms={
        "ssim_channel": Arm("ssim", ["losses.ssim.normalize=channel", MAPPED]),
        "ssim_rest": Arm("ssim", [MAPPED], unlabeled="rest"),
        "ikd": Arm("ikd", [MAPPED]),
        "ikd_rest": Arm("ikd", [MAPPED], unlabeled="rest"),
        "aid": Arm("aid", [MAPPED]),
        "aid_rest": Arm("aid", [MAPPED], unlabeled="rest"),
    },
    seeds=[9],
    half="tune",
)
HEADS = {"bckd": bckd(8, 32, MAPPED), "ld": Arm("ld", [MAPPED])}
ALL = replace(
    FOOTAGE,
    arms={
        "baseline": Arm("baseline"),
        "pseudo_streets": pseudo("streets"),
        "bckd_2x": DOUBLE,
        "bckd": bckd(8, 32, MAPPED),
        "ultralytics": Arm("ultralytics", [MAPPED]),
    },
    labels=1.0,
    epochs=20,
)  # of 43 steps: 860
SCRATCH_FEW = Plan(
    {
        "ultralytics": Arm("ultralytics", [MAPPED]),
        "init": bckd(0, 0, INIT, MAPPED),
        "best": Arm("best", [MAPPED]),
        "pseudo": pseudo("rest"),
        "pseudo_init": pseudo("rest", INIT),
    },
    seeds=range(3),
    epochs=300,  # of 5 steps: 1,500
    half="report",
    labels=0.1,
    teacher="yolov8n-coco",
    teacher_epochs=0,
)
LOW = [*FINETUNE, "lr0=1e-4"]  # the best for plain training there
PLANS = {
    "footage_10": FOOTAGE,
    "footage_10_taught": TAUGHT,
    "footage_10_taught_screening": replace(TAUGHT, half="tune", seeds=[9]),
    "candidates": CANDIDATES,
    "candidates_heads": replace(CANDIDATES, arms=HEADS),
    "candidates_scratch": replace(FEW, arms=HEADS, seeds=[9], half="tune"),
    "candidates_augmented": replace(
        CANDIDATES, arms={"pseudo": pseudo("rest")}, settings=[*FOOTAGE.settings, "scale=0.9", "mixup=0.2"]
    ),
    "footage_10_long": replace(FOOTAGE, epochs=144),  # 720 steps
    "footage_10_low": replace(FOOTAGE, settings=LOW),
    "footage_10_256": replace(FOOTAGE, imgsz=256, arms={"pseudo": pseudo("rest", "teacher.imgsz=640")}),
    "footage_05": replace(FOOTAGE, labels=0.05, epochs=100),  # of 3 steps: 300
    "footage_05_low": replace(FOOTAGE, labels=0.05, epochs=100, settings=LOW),
    "footage_100": ALL,
    "footage_100_high": replace(ALL, settings=FINETUNE),
    "footage_100_screening": replace(ALL, half="tune", seeds=[9]),
    "footage_100_high_screening": replace(ALL, half="tune", seeds=[9], settings=FINETUNE),
    "footage_25_low": replace(FOOTAGE, labels=0.25, epochs=27, settings=LOW),
    "footage_25": replace(FOOTAGE, labels=0.25, epochs=27),  # of 11 steps: 297
    "pretrained_10": PRETRAINED,
    "pretrained_25": replace(PRETRAINED, labels=0.25, epochs=90, teacher_epochs=60),  # of 11 steps: 990
    "pretrained_100": replace(  # of 43 steps: 860
        PRETRAINED,
        arms={name: PRETRAINED.arms[name] for name in ("bckd", "ultralytics", "bckd_streets")},
        labels=1.0,
        epochs=20,
        teacher_epochs=30,
    ),
    "screening": Plan(
        {
            "ultralytics": Arm("ultralytics"),
            "bckd_2_8": bckd(2, 8),
            "bckd_8_32": bckd(8, 32),
            "init": bckd(0, 0, "student.init=teacher"),
            "best": Arm("best"),
        },
        seeds=[0],
        epochs=40,
        half="tune",
    ),
    "final": Plan(
        {"ultralytics": Arm("ultralytics"), "best": Arm("best")},
        seeds=range(5),
        epochs=30,
        half="report",
        settings=NO_BIAS_WARMUP,
    ),
    "control": CONTROL,
    "control_screening": replace(
        CONTROL,
        arms={name: METHODS[name] for name in ("ssim_2", "ssim_20", "aid_20", "ikd_3")},
        seeds=[9],
        half="tune",
    ),
    "long": Plan(
        {"init": bckd(0, 0, INIT), "best": Arm("best"), "ultralytics": Arm("ultralytics")},
        seeds=range(3),
        epochs=100,
        half="report",
    ),
    "scratch_10": SCRATCH_FEW,
    "few": FEW,
    "quarter": replace(FEW, labels=0.25, teacher_epochs=40),
    "trained_screening": replace(TRAINED, arms=METHODS, seeds=[9], epochs=10, half="tune"),
    "trained": TRAINED,
    "trained_long": replace(TRAINED, arms={"bckd": bckd(8, 32)}, epochs=60),
    "trained_few": replace(
        FEW,
        arms={"bckd": bckd(8, 32), "bckd_rest": Arm("bckd", bckd(8, 32).changes, unlabeled="rest")},
        seeds=range(5),
        student_epochs=600,
        settings=FINETUNE,
    ),
    "methods": replace(
        FEW,
        arms={
            "bckd": bckd(8, 32),
            "ssim": ssim("schedule.warmup=40"),
            "samkd": Arm("samkd", ["losses.samkd.logits=2"]),
            "ikd": Arm("ikd", ["schedule.warmup=40"]),
            "aid": Arm("aid", ["balance.share=0.2"]),
        },
        seeds=range(5),
    ),
    "methods_screening": replace(FEW, arms=METHODS, seeds=[9], half="tune"),
    "methods_init": replace(FEW, arms=METHODS_INIT, seeds=[9], half="tune"),
}
