#!/usr/bin/env python3
"""Train a small PyTorch network on scikit-learn's handwritten digits, with a checkpoint after every epoch.

Usage: python train.py --config_path configs/cnn.yml [--resume]
       python -m torch.distributed.run --nproc_per_node=2 train.py --config_path configs/two_processes.yml [--resume]

An ordinary script: it takes `cuda` when there is a device, else the CPU, and under torchrun it trains with
DistributedDataParallel. With --resume it goes on from its checkpoint if there is one, and ends with the numbers that an
unbroken training would have given. From tinksched it reads where to write: TINKSCHED_OUTPUT_DIR and TINKSCHED_TASK.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy, which reads it when it is imported

import torch
import torch.distributed as dist
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

RANK = int(os.environ.get("RANK", "0"))  # torchrun sets these three
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
MODELS = ("cnn", "mlp")
SPLIT_SEED = 0  # not the config's seed: every config is judged on the same held-out images
Splits = dict[str, tuple[Tensor, Tensor]]


class ConfigError(Exception):
    """The config can't be used; the message is one line for the user."""


@dataclass(frozen=True)
class Config:
    """The keys of a config file, with their defaults."""

    model: str = "cnn"
    width: int = 16  # channels of the first convolution, or hidden units of the mlp
    learning_rate: float = 0.003
    batch_size: int = 32  # of all processes together
    epochs: int = 15
    seed: int = 0
    crash_after_epoch: int = 0  # die after the checkpoint of this epoch, as if the machine had failed; 0: never


def load_config(path: Path) -> Config:
    """Read and check a config file; raises ConfigError."""
    try:
        values = YAML(typ="safe").load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if not isinstance(values, dict):
        raise ConfigError("must be a map of keys and values, such as 'model: cnn'")
    defaults = asdict(Config())
    for key, value in values.items():
        if key not in defaults:
            raise ConfigError(f"unknown key {key!r}; known are {', '.join(defaults)}")
        wanted = type(defaults[key])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ConfigError(f"{key} must be of type {wanted.__name__}, not {value!r}")
    config = Config(**values)
    if config.model not in MODELS:
        raise ConfigError(f"model must be one of {', '.join(MODELS)}, not {config.model!r}")
    if min(config.width, config.epochs, config.batch_size) < 1 or config.learning_rate <= 0:
        raise ConfigError("width, epochs and batch_size must be at least 1, learning_rate above 0")
    return config


def say(text: str) -> None:
    """Print from the first process only."""
    if RANK == 0:
        print(text, flush=True)


def pick_device() -> torch.device:
    """A CUDA device for each process, if there are enough of them; else the CPU for all."""
    if torch.cuda.device_count() < int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        return torch.device("cpu")
    torch.cuda.set_device(LOCAL_RANK)
    return torch.device("cuda", LOCAL_RANK)


def load_data(device: torch.device) -> Splits:
    """Return the splits train, validation and test as (images, labels), pixels scaled to 0..1."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.2, stratify=y, random_state=SPLIT_SEED)
    x, x_valid, y, y_valid = train_test_split(x, y, test_size=0.25, stratify=y, random_state=SPLIT_SEED)
    splits = {"train": (x, y), "validation": (x_valid, y_valid), "test": (x_test, y_test)}
    return {
        name: (torch.tensor(images).float().reshape(-1, 1, 8, 8).to(device), torch.tensor(labels).to(device))
        for name, (images, labels) in splits.items()
    }


def build_network(config: Config) -> nn.Module:
    """Return the untrained network that the config asks for."""
    width = config.width
    if config.model == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * width, 10),
    )


def moved(images: Tensor, windows: Tensor) -> Tensor:
    """Return each image moved by up to one pixel: it is one of nine windows, and 4 leaves it where it is."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return padded.unfold(2, 8, 1).unfold(3, 8, 1).reshape(-1, 1, 9, 8, 8)[torch.arange(len(images)), :, windows]


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((network(images).argmax(dim=1) == labels).float().mean())


class Training:
    """What a checkpoint has to bring back: network, optimizer, the history by epoch, and the random numbers."""

    def __init__(self, config: Config, device: torch.device, checkpoint: Path) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.checkpoint = checkpoint
        self.network = build_network(config).to(device)
        self.parallel = DistributedDataParallel(self.network) if WORLD_SIZE > 1 else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.history: list[dict[str, float]] = []

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the config that may not change between two attempts; training for longer is fine."""
        free = ("epochs", "crash_after_epoch")
        return {key: value for key, value in asdict(self.config).items() if key not in free}

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one and it is of this config."""
        if not self.checkpoint.exists():
            say("no checkpoint yet: starting from the beginning")
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if saved["identity"] != self.identity:
            say("the checkpoint is of another config: starting from the beginning")
            return
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history = saved["history"]
        torch.set_rng_state(saved["random"])
        say(f"resuming after epoch {saved['epoch']}")

    def save(self) -> None:
        """Write aside, then rename: whatever happens, there is a whole checkpoint, the old one or the new one."""
        if RANK == 0:
            aside = self.checkpoint.with_name(f".{self.checkpoint.name}.tmp")
            state = {
                "identity": self.identity,
                "epoch": len(self.history),
                "history": self.history,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            }
            torch.save(state, aside)
            aside.replace(self.checkpoint)
        if WORLD_SIZE > 1:
            dist.barrier()  # nobody gets ahead of what is on disk

    def epoch(self, images: Tensor, labels: Tensor) -> float:
        """Train on every image once, in mini-batches of a new random order; returns the mean loss of this process.

        Random numbers are drawn on the CPU and are the same in all processes. Each process takes its share of every
        batch, so the result depends on the number of processes only by rounding, and one random state is all of them.
        """
        total = 0.0
        for batch in torch.randperm(len(images)).to(images.device).split(self.config.batch_size):
            windows = torch.randint(9, (len(batch),))
            if len(batch) < WORLD_SIZE:  # too few images left for everybody
                continue
            share = batch[RANK::WORLD_SIZE]
            outputs = self.parallel(moved(images[share], windows[RANK::WORLD_SIZE]))
            loss = nn.functional.cross_entropy(outputs, labels[share])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(share)
        return total * WORLD_SIZE / len(images)

    def run(self, data: Splits) -> None:
        """Train the epochs that are left, a line and a checkpoint each."""
        for number in range(len(self.history) + 1, self.config.epochs + 1):
            began = time.perf_counter()
            loss = self.epoch(*data["train"])
            validation = accuracy(self.network, *data["validation"])
            seconds = time.perf_counter() - began
            self.history.append({"epoch": number, "loss": loss, "validation": validation})
            say(f"epoch {number:3}/{self.config.epochs}  loss {loss:.4f}  validation {validation:.4f}  {seconds:.2f} s")
            self.save()
            if number == self.config.crash_after_epoch:
                sys.exit("crashing on purpose (crash_after_epoch): the checkpoint is written, the work is not done")


def write_atomically(path: Path, text: str) -> None:
    """Write aside, then rename: whoever looks sees the whole file or none."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def train(config: Config, task: str, output_dir: Path, resume: bool) -> None:
    device = pick_device()
    if WORLD_SIZE > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    gpus, attempt = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("TINKSCHED_ATTEMPT", "1")
    say(f"{task}: {config.model} on {device.type}, {WORLD_SIZE} process{'es' * (WORLD_SIZE > 1)}, attempt {attempt}")

    began = time.perf_counter()
    output_dir.mkdir(parents=True, exist_ok=True)
    training = Training(config, device, output_dir / f"{task}.ckpt.pt")
    if resume:
        training.resume()
    resumed_after = len(training.history)
    data = load_data(device)
    training.run(data)
    tested = accuracy(training.network, *data["test"])
    seconds = round(time.perf_counter() - began, 2)
    say(f"{task}: test accuracy {tested:.4f} in {seconds} s")
    if RANK == 0:
        facts = {"task": task, "device": device.type, "processes": WORLD_SIZE, "gpus": gpus, "seconds": seconds}
        metrics = {**facts, "resumed_after_epoch": resumed_after, "config": asdict(config), "test_accuracy": tested}
        text = json.dumps({**metrics, "history": training.history}, indent=2)
        write_atomically(output_dir / f"{task}_metrics.json", text + "\n")
        write_atomically(output_dir / f"{task}_completed.txt", f"test_accuracy: {tested:.4f}\nseconds: {seconds}\n")
    if WORLD_SIZE > 1:
        dist.destroy_process_group()


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a small PyTorch network on the handwritten digits.")
    parser.add_argument("--config_path", type=Path, required=True, metavar="FILE", help="a YAML file of configs/")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    options = parser.parse_args()
    path: Path = options.config_path
    try:
        config = load_config(path)
    except ConfigError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # several trainings at once would fight over the cores
    task = os.environ.get("TINKSCHED_TASK") or path.stem
    output_dir = Path(os.environ.get("TINKSCHED_OUTPUT_DIR") or Path(__file__).parent / "out")
    train(config, task, output_dir, options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
