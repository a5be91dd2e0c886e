"""Every command that reads files of the user's, and which file it is: what `test_mutated_files.py` damages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.mutations import ANY, IMAGE, JSON, TEXT, YAML, Mutation

CPU = ("--device", "cpu")
PAIR = ("--teacher", "@teacher.pt", "--student", "@student.pt", "--recipe", "bckd", *CPU)
TRAIN = ("--teacher", "@teacher.pt", "--imgsz", "64", "--dry-run", *CPU)


@dataclass(frozen=True)
class Reader:
    """A command and one of the files that it reads."""

    line: tuple[str, ...]  # "@" stands for the folder of inputs
    file: str  # below that folder
    groups: tuple[Mapping[str, Mutation], ...] = ()  # mutations beside `ANY`
    needs: tuple[str, ...] = ()  # what else of the folder
    slow: bool = False  # to be called less often

    def mutations(self) -> dict[str, Mutation]:
        """All mutations of this file."""
        return {name: mutation for group in (ANY, *self.groups) for name, mutation in group.items()}


CHECK = Reader(("data", "check", "@set/data.yaml"), "set/data.yaml", needs=("set",))
EVAL = Reader(("eval", "@student.pt", "--data", "@set/data.yaml", *CPU), "", needs=("set", "student.pt"), slow=True)
DRY = Reader(
    ("train", "--student", "@student.yaml", "--recipe", "@recipe.yaml", "--data", "@set/data.yaml", *TRAIN),
    "",
    needs=("set", "student.yaml", "teacher.pt", "recipe.yaml"),
    slow=True,
)
DRAWN = (*CPU, "--out", "drawn")
PREDICT = Reader(("predict", "@student.pt", "@set/images/val", *DRAWN), "", needs=("set", "student.pt"), slow=True)
INSPECT = Reader(
    ("inspect", "@set/images/val/001.png", *PAIR, "--out", "drawn"),
    "",
    needs=("set", "student.pt", "teacher.pt"),
    slow=True,
)
REPORT = Reader(("report", "@run", "--out", "page.html", *CPU), "", needs=("run", "set", "teacher.pt"), slow=True)
COMPARED = replace(REPORT, line=("report", "@compared", *REPORT.line[2:]), needs=("compared", "set", "teacher.pt"))
RESUME = Reader(("train", "--resume", "@going"), "", needs=("going",), slow=True)
COMPARE = Reader(
    (
        *("compare", "--teacher", "@teacher.pt", "--student", "@student.yaml", "--recipes", "bckd", "--seeds", "0,1"),
        *("--data", "@set/data.yaml", "--epochs", "3", "--imgsz", "64", "--batch", "8", *CPU, "--name", "compared"),
    ),
    "compared/compare.json",
    (TEXT, JSON),
    ("set", "student.yaml", "teacher.pt"),
    slow=True,
)
KITTI = Reader(("data", "kitti", "@kitti", "out", "--split", "random"), "", needs=("kitti",))
COCO = Reader(
    ("data", "coco-traffic", "@coco", "out"), "coco/annotations/instances_train2017.json", (TEXT, JSON), ("coco",)
)
READERS: Mapping[str, Reader] = {
    "check data": replace(CHECK, groups=(TEXT, YAML)),
    "check list": replace(CHECK, line=("data", "check", "@set/listed.yaml"), file="set/train.txt", groups=(TEXT,)),
    "check label": replace(CHECK, file="set/labels/train/001.txt", groups=(TEXT,)),
    "check cache": replace(CHECK, file="set/labels/train.cache"),
    "check image": replace(CHECK, line=(*CHECK.line, "--deep"), file="set/images/train/001.png", groups=(IMAGE,)),
    "recipes check": Reader(("recipes", "check", "@recipe.yaml"), "recipe.yaml", (TEXT, YAML)),
    "recipes show": Reader(("recipes", "show", "@recipe.yaml"), "recipe.yaml", (TEXT, YAML), slow=True),
    "kitti label": replace(KITTI, file="kitti/training/label_2/000001.txt", groups=(TEXT,)),
    "kitti image": replace(KITTI, file="kitti/training/image_2/000001.png", groups=(IMAGE,), slow=True),
    "kitti classes": replace(
        KITTI, line=(*KITTI.line, "--classes", "@classes.yaml"), file="classes.yaml", groups=(TEXT, YAML)
    ),
    "kitti ids": replace(
        KITTI,
        line=("data", "kitti", "@kitti", "out", "--split", "@train.txt,../in/val.txt"),
        file="train.txt",
        groups=(TEXT,),
        needs=("kitti", "val.txt"),
        slow=True,
    ),
    "coco instances": COCO,
    "report arguments": replace(REPORT, file="run/args.yaml", groups=(TEXT, YAML)),
    "report recipe": replace(REPORT, file="run/recipe.yaml", groups=(TEXT, YAML)),
    "report provenance": replace(REPORT, file="run/provenance.json", groups=(TEXT, JSON)),
    "report results": replace(REPORT, file="run/results.csv", groups=(TEXT,)),
    "report weights of instances": replace(REPORT, file="run/aid.jsonl", groups=(TEXT, JSON)),
    "report checkpoint": replace(REPORT, file="run/weights/last.pt"),
    "compared plan": replace(COMPARED, file="compared/compare.json", groups=(TEXT, JSON)),
    "compared teacher": replace(COMPARED, file="compared/teacher.json", groups=(JSON,)),
    "compared score": replace(COMPARED, file="compared/student/bckd-0/score.json", groups=(TEXT, JSON)),
    "compared matches": replace(COMPARED, file="compared/student/bckd-0/matches.npz"),
    "compared results": replace(COMPARED, file="compared/student/bckd-0/results.csv", groups=(TEXT,)),
    "compared log": replace(COMPARED, file="compared/student/bckd-1.log", groups=(TEXT,)),
    "resume checkpoint": replace(RESUME, file="going/weights/last.pt"),
    "resume provenance": replace(RESUME, file="going/provenance.json", groups=(TEXT, JSON)),
    "resume results": replace(RESUME, file="going/results.csv", groups=(TEXT,)),
    "compare plan": COMPARE,
    "train data": replace(DRY, file="set/data.yaml", groups=(TEXT, YAML)),
    "train recipe": replace(DRY, file="recipe.yaml", groups=(TEXT, YAML)),
    "train student": replace(DRY, file="student.yaml", groups=(TEXT, YAML)),
    "train teacher": replace(DRY, file="teacher.pt"),
    "train unlabeled": replace(DRY, line=(*DRY.line, "--unlabeled", "@set/train.txt"), file="set/train.txt"),
    "eval data": replace(EVAL, file="set/data.yaml", groups=(TEXT, YAML)),
    "eval label": replace(EVAL, file="set/labels/val/001.txt", groups=(TEXT,)),
    "eval image": replace(EVAL, file="set/images/val/001.png", groups=(IMAGE,)),
    "eval checkpoint": replace(EVAL, file="student.pt"),
    "predict checkpoint": replace(PREDICT, file="student.pt"),
    "predict images": replace(PREDICT, file="set/images/val/001.png", groups=(IMAGE,)),
    "predict image": replace(
        PREDICT, line=("predict", "@student.pt", "@set/images/val/001.png", *DRAWN), file="set/images/val/001.png",
        groups=(IMAGE,),
    ),
    "predict list": replace(
        PREDICT, line=("predict", "@student.pt", "@set/train.txt", *DRAWN), file="set/train.txt", groups=(TEXT,)
    ),
    "inspect image": replace(INSPECT, file="set/images/val/001.png", groups=(IMAGE,)),
    "inspect label": replace(INSPECT, file="set/labels/val/001.txt", groups=(TEXT,)),
    "inspect student": replace(INSPECT, file="student.pt"),
    "export checkpoint": Reader(("export", "@student.pt", "--imgsz", "64"), "student.pt", slow=True),
}  # fmt: skip
TYPED = (  # readers of plain data, of which each value is replaced
    "check data", "recipes check", "kitti classes", "coco instances", "report arguments", "report recipe",
    "report provenance", "report weights of instances", "compared plan", "compared teacher", "compared score",
    "train student",
)  # fmt: skip
