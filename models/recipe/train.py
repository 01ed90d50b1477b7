"""Train a release on parts drawn by the simulator and write its `model.onnx`: `python models/recipe/train.py 2`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).resolve().parent)]

from network import LABELS, STRIDE, PartsNet  # noqa: E402
from releases import RELEASES, TRAINING_DEFECT_RATE, Release  # noqa: E402

from agent.simulator import parts  # noqa: E402

OPSET = 17


def batch_of(release: Release, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Render new parts and say what the network should answer.

    Returns:
        pictures (B, 3, H, W) 0 to 1; targets (B, 5, h, w): 1 where a cell is next to a defect's centre, then the box
        (centre x, y in cells; w, h as fractions); classes (B, h, w), -1 where there is no defect.
    """
    rows, columns = release.height_px // STRIDE, release.width_px // STRIDE
    pictures = np.empty((release.batch, 3, release.height_px, release.width_px), dtype=np.float32)
    targets = np.zeros((release.batch, 5, rows, columns), dtype=np.float32)
    classes = np.full((release.batch, rows, columns), -1, dtype=np.int64)
    for index in range(release.batch):
        part = parts.plan_part(release.training_seed, step * release.batch + index, TRAINING_DEFECT_RATE)
        small = cv2.resize(parts.render(part), (release.width_px, release.height_px), interpolation=cv2.INTER_LINEAR)
        pictures[index] = small.transpose(2, 0, 1) / np.float32(255)
        for defect in part.truth.defects:
            _mark(targets[index], classes[index], defect)
    return torch.from_numpy(pictures), torch.from_numpy(targets), torch.from_numpy(classes)


def _mark(targets: NDArray[np.float32], classes: NDArray[np.int64], defect: parts.Defect) -> None:
    rows, columns = classes.shape
    x1, y1, x2, y2 = defect.box
    x, y = (x1 + x2) / 2 / parts.WIDTH_PX * columns, (y1 + y2) / 2 / parts.HEIGHT_PX * rows
    w, h = (x2 - x1) / parts.WIDTH_PX, (y2 - y1) / parts.HEIGHT_PX
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < rows and 0 <= column < columns:
                targets[:, row, column] = 1.0, x, y, w, h
                classes[row, column] = LABELS.index(defect.kind)


def loss_of(raw: Tensor, targets: Tensor, classes: Tensor) -> Tensor:
    """Focal loss for the cells, smooth L1 for the boxes, cross entropy for the classes."""
    wanted = targets[:, 0]
    chance = raw[:, 0].sigmoid()
    plain = functional.binary_cross_entropy_with_logits(raw[:, 0], wanted, reduction="none")
    missed = torch.where(wanted > 0, 1 - chance, chance)
    cells = (plain * missed.square() * torch.where(wanted > 0, 0.7, 0.3)).sum() / wanted.sum().clamp(min=1)
    at = classes >= 0
    if not bool(at.any()):
        return cells
    rows, columns = torch.meshgrid(torch.arange(raw.shape[2]), torch.arange(raw.shape[3]), indexing="ij")
    corner = torch.stack([columns, rows]).expand(raw.shape[0], -1, -1, -1)
    offsets = functional.smooth_l1_loss(_at(raw[:, 1:3].tanh() + corner, at), _at(targets[:, 1:3], at), beta=0.2)
    sizes = functional.smooth_l1_loss(_at(raw[:, 3:5].sigmoid(), at), _at(targets[:, 3:5], at), beta=0.02)
    kinds = functional.cross_entropy(_at(raw[:, 5:], at), classes[at])
    return cells * 4 + offsets + sizes * 10 + kinds


def _at(values: Tensor, cells: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1)[cells]


def train(release: Release) -> PartsNet:
    """Train from nothing, with fixed seeds and a learning rate that rises once and falls."""
    torch.manual_seed(release.release)
    net = PartsNet(release.width, release.dilations)
    optimiser = torch.optim.AdamW(net.parameters(), lr=release.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, release.learning_rate, total_steps=release.steps)
    started, recent = time.monotonic(), 0.0
    for step in range(release.steps):
        pictures, targets, classes = batch_of(release, step)
        loss = loss_of(net.raw(pictures), targets, classes)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        recent = 0.98 * recent + 0.02 * float(loss.detach())
        if step % 50 == 49:
            print(f"step {step + 1}/{release.steps}  loss {recent:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return net.eval()


def export(net: PartsNet, release: Release, path: Path) -> None:
    """Write the network as one ONNX file of fixed shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = torch.zeros(1, 3, release.height_px, release.width_px)
    names = {"input_names": ["picture"], "output_names": ["grid"]}
    torch.onnx.export(net, (picture,), str(path), opset_version=OPSET, dynamo=False, **names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=int, choices=sorted(RELEASES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True)
    release = RELEASES[arguments.release]
    export(train(release), release, release.folder / "model.onnx")
    print(f"wrote {release.folder / 'model.onnx'}: now run models/recipe/measure.py {release.release}")


if __name__ == "__main__":
    main()
