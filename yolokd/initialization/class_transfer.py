"""Class rows of a pretrained student: from its own checkpoint under other names, and from the teacher.

Ultralytics keeps the hidden layers of a checkpoint's class branch, also where another number of classes would have made
them narrower, and takes over the rows of equal class names with their biases. All other rows start at random. Here they
come from, in this order:

1. a class of the checkpoint that the recipe maps to the data's class: its row as it is;
2. several classes of the checkpoint, as with `train.single_cls`: a row fitted to the largest of their logits;
3. the teacher: a row fitted to its logit, or the largest of several.

Fits are linear least squares on training images, from the last hidden features of the student's class branch to the
logit, at each level and for each branch; see `yolokd.initialization.reconstruction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.backend.api import DetectionModel
from yolokd.backend.classes import ClassMatch, match_task
from yolokd.backend.heads import HeadInfo, by_level, grid_of, neck_features, read_head, split_branches
from yolokd.errors import PairError
from yolokd.initialization.reconstruction import Fit, positions
from yolokd.recipe.classes import ITEM, ClassMap, fold

RIDGE = 1e-2  # features of one branch are to give another model's logits: more than for a layer's own outputs
BRANCHES = {"cv3": "one2many", "one2one_cv3": "one2one"}  # attribute of the head → name of its raw output
Sources = Mapping[int, tuple[int, ...]]  # class of the data → classes of another model, of which the largest counts


@dataclass(frozen=True)
class ClassRows:
    """Where each row of the class output comes from, by index of the data's classes.

    Attributes:
        copied: From one class of the checkpoint each.
        joined: Fitted to several classes of the checkpoint.
        taught: Fitted to classes of the teacher.
        left: As Ultralytics starts them.
        names: Index → name of the data's classes.
        own: Index → name of the checkpoint's classes.
        others: Index → name of the teacher's classes; empty without a teacher.
    """

    copied: Mapping[int, int]
    joined: Sources
    taught: Sources
    left: tuple[int, ...]
    names: Mapping[int, str]
    own: Mapping[int, str]
    others: Mapping[int, str]

    def describe(self) -> str:
        """Return what is taken from where, as one line."""
        same = [index for index, source in self.copied.items() if fold(self.names[index]) == fold(self.own[source])]
        known = {fold(name) for name in self.own.values()}
        same += [index for index in self.left if fold(self.names[index]) in known]  # whose own row another one has too
        parts = [f"{_listed(self.names[index] for index in sorted(same))} from the checkpoint by name"] if same else []
        parts += [
            f"{self.names[index]} from the checkpoint's {self.own[source]}"
            for index, source in self.copied.items()
            if index not in same
        ]
        for sources, names, whose in ((self.joined, self.own, "checkpoint's"), (self.taught, self.others, "teacher's")):
            parts += [
                f"{self.names[index]} fitted to the {whose} {' + '.join(names[source] for source in several)}"
                for index, several in sources.items()
            ]
        if random := [self.names[index] for index in self.left if index not in same]:
            parts.append(f"{_listed(random)} at random")
        return "; ".join(parts)


def plan_class_rows(
    data: Mapping[int, str],
    own: Mapping[int, str],
    classes: ClassMap,
    *,
    teacher: Mapping[int, str] | None = None,
    teacher_classes: ClassMap | None = None,
    joined: bool = False,
) -> ClassRows:
    """Return where each row of the class output comes from.

    Args:
        data: Index → name of the data's classes, before joining.
        own: Index → name of the classes of the student's checkpoint.
        classes: `student.classes` of the recipe.
        teacher: Index → name of the teacher's classes; None without a teacher.
        teacher_classes: `teacher.classes` of the recipe.
        joined: Whether `train.single_cls` joins the data's classes.

    Raises:
        RecipeError: A mapping names a class that one side does not have.
        UserError: No shipped map has this name, it knows none of the data's classes, or names are ambiguous.
    """
    ours = _sources(match_task(data, own, classes, joined=joined, of="student"))
    theirs = {} if teacher is None else _sources(match_task(data, teacher, teacher_classes or {}, joined=joined))
    names = {0: ITEM} if joined else data
    return ClassRows(
        copied={index: several[0] for index, several in ours.items() if len(several) == 1},
        joined={index: several for index, several in ours.items() if len(several) > 1},
        taught={index: several for index, several in theirs.items() if index not in ours},
        left=tuple(index for index in sorted(names) if index not in ours and index not in theirs),
        names=names,
        own=own,
        others=teacher or {},
    )


def _sources(match: ClassMatch) -> dict[int, tuple[int, ...]]:
    return dict(zip(match.student, match.teacher, strict=True))


def require_same_head(student: DetectionModel, checkpoint: DetectionModel, path: str) -> None:
    """Refuse a checkpoint whose class branch the student cannot take over.

    Args:
        student: As its description builds it.
        checkpoint: What `train.pretrained` names.
        path: Its path, for the error.

    Raises:
        PairError: Inputs or branches of the heads differ.
    """
    ours, theirs = (read_head(model, "The student") for model in (student, checkpoint))
    for what, here, there in (
        ("levels", ours.levels, theirs.levels),
        ("inputs", tuple(ours.widths.values()), tuple(theirs.widths.values())),
        ("branches", ours.branches, theirs.branches),
    ):
        if here != there:
            raise PairError(
                f"student.init: classes takes class rows from '{path}', but {what} of its head are "
                f"{_listed(map(str, there))}, the student's {_listed(map(str, here))}. Give a checkpoint of the "
                f"student's own architecture, or take student.init: random."
            )


def require_levels(student: HeadInfo, teacher: HeadInfo) -> None:
    """Refuse a teacher to whose logits the class rows of some of the student's levels cannot be fitted.

    Raises:
        PairError: The student has a level that the teacher lacks.
    """
    if lacking := [level for level in student.levels if level not in teacher.levels]:
        raise PairError(
            f"student.init: classes fits class rows to the teacher's on every level of the student, and the teacher "
            f"has no {_listed(lacking)}. Take another teacher, or student.init: auto."
        )


@torch.no_grad()
def transfer_class_rows(
    student: DetectionModel,
    checkpoint: DetectionModel,
    rows: ClassRows,
    *,
    images: Callable[[], Sequence[Tensor]],
    teacher: DetectionModel | None = None,
) -> None:
    """Fill the rows of the student's class output, in place.

    Args:
        student: Into which Ultralytics has loaded the checkpoint.
        checkpoint: A trained detector of the same architecture.
        rows: From `plan_class_rows`.
        images: Returns training images in batches, (B, 3, H, W) in [0, 1]; called only if rows are fitted.
        teacher: Not folded, on the student's device; needed if rows come from it.

    Raises:
        PairError: The hidden layers of the class branches differ.
    """
    outputs = _outputs(student)
    trained = _outputs(checkpoint)
    for key, conv in outputs.items():
        if key not in trained or trained[key].in_channels != conv.in_channels:
            raise PairError(
                f"student.init: classes cannot take class rows over: the class branch {key[0]} has other hidden "
                f"channels in the student than in its checkpoint. Take student.init: random."
            )
        for name in ("weight", "bias"):
            ours, theirs = getattr(conv, name), getattr(trained[key], name)
            ours[list(rows.copied)] = theirs[list(rows.copied.values())].to(ours)
    if rows.joined or rows.taught:
        _fit(student, trained, rows, images(), teacher)


def _fit(
    student: DetectionModel,
    trained: Mapping[tuple[str, int], nn.Conv2d],
    rows: ClassRows,
    batches: Sequence[Tensor],
    teacher: DetectionModel | None,
) -> None:
    """Fit the rows that have no single source."""
    indices = [*rows.joined, *rows.taught]
    outputs = _outputs(student)
    fits = {key: Fit(conv, len(indices), ridge=RIDGE) for key, conv in outputs.items()}
    with _raw_outputs(student), ExitStack() as stack:
        if teacher is not None and rows.taught:
            stack.enter_context(_raw_outputs(teacher))
        for number, batch in enumerate(batches):
            features = _inputs(student, outputs, batch)
            taught = _taught(teacher, rows.taught, batch, features) if teacher is not None and rows.taught else {}
            for key, x in features.items():
                logits = [_largest(_logits(trained[key], x), rows.joined)] if rows.joined else []
                target = torch.cat([*logits, *taught.get(key, ())], 1).flatten(2).mT  # (B, H·W, rows)
                places = positions(target.shape[1], number).to(target.device)
                fits[key].add(x, target[:, places], number)
    for key, fit in fits.items():
        found, conv = fit.solve(), outputs[key]
        for name in ("weight", "bias"):
            getattr(conv, name)[indices] = getattr(found, name).to(getattr(conv, name))


def _outputs(model: DetectionModel) -> dict[tuple[str, int], nn.Conv2d]:
    """Return the class outputs, (attribute of the head, level) → last convolution."""
    head: Any = model.model[-1]
    return {
        (part, level): branch[-1] for part in BRANCHES for level, branch in enumerate(getattr(head, part, None) or ())
    }


def _inputs(
    student: DetectionModel, outputs: Mapping[tuple[str, int], nn.Conv2d], batch: Tensor
) -> dict[tuple[str, int], Tensor]:
    """Return the last hidden features of each class output, (B, C, H, W)."""
    found: dict[tuple[str, int], Tensor] = {}
    with ExitStack() as stack:
        for key, conv in outputs.items():

            def note(unit: nn.Module, inputs: tuple[Tensor, ...], key: tuple[str, int] = key) -> None:
                found[key] = inputs[0]

            stack.callback(conv.register_forward_pre_hook(note).remove)
        student(batch)
    return found


def _taught(
    teacher: DetectionModel, sources: Sources, batch: Tensor, features: Mapping[tuple[str, int], Tensor]
) -> dict[tuple[str, int], list[Tensor]]:
    """Return the teacher's logits on the student's grid, each [(B, rows, H, W)].

    A teacher with one branch gives the logits for both of the student's. It has all levels of the student, see
    `require_levels`.
    """
    output = teacher(batch)
    raw, grid = split_branches(output), grid_of(neck_features(output, batch))
    found: dict[tuple[str, int], list[Tensor]] = {}
    for part, branch in BRANCHES.items():
        levels = [(key, x.shape[-2:]) for key, x in features.items() if key[0] == part]
        own = by_level((features[key] for key, _ in levels), batch)
        scores = grid.pick(raw.get(branch, raw["one2many"])["scores"], own, 2)  # (B, K, A)
        cells = scores.split([h * w for _, (h, w) in levels], 2) if levels else ()
        for (key, shape), logits in zip(levels, cells, strict=True):
            found[key] = [_largest(logits.unflatten(2, shape), sources)]
    return found


def _largest(logits: Tensor, sources: Sources) -> Tensor:
    """Return for each row the largest logit among its sources, (B, K, H, W) → (B, rows, H, W)."""
    return torch.stack([logits[:, list(several)].amax(1) for several in sources.values()], 1)


def _logits(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight.to(x), None if conv.bias is None else conv.bias.to(x))


@contextmanager
def _raw_outputs(model: DetectionModel) -> Iterator[None]:
    """Put a model into evaluation mode, but for its head, which then decodes no boxes; restore all modes."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    model.model[-1].training = True
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
