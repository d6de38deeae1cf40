#!/usr/bin/env python3
"""Train one classifier on scikit-learn's handwritten digits (1,797 real 8x8 images, part of the package).

Usage: python train.py --config_path configs/mlp_small.yml

An ordinary script: it would run the same without tinksched, which only adds four variables to its environment.
CUDA_VISIBLE_DEVICES is shown and recorded (these models run on the CPU); TINKSCHED_OUTPUT_DIR and TINKSCHED_TASK
say where and under which name the results go; OMP_NUM_THREADS keeps parallel runs from fighting over the cores.
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

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import hinge_loss, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

Array = NDArray[Any]
CLASSES = np.arange(10)
MODELS = ("mlp", "linear", "rbf_svm")
SPLIT_SEED = 0  # not the config's seed: every config is judged on the same held-out images


class ConfigError(Exception):
    """The config can't be used; the message is one line for the user."""


@dataclass(frozen=True)
class Config:
    """The keys of a config file, with their defaults."""

    model: str = "mlp"
    hidden_layers: tuple[int, ...] = (64,)  # mlp
    rbf_features: int = 300  # rbf_svm: random Fourier features
    rbf_gamma: float = 0.5  # rbf_svm: width of the kernel
    learning_rate: float = 0.001
    l2: float = 0.0001
    batch_size: int = 32
    epochs: int = 30
    train_fraction: float = 1.0
    augment: bool = True  # add copies moved by one pixel in the four directions
    seed: int = 0


def load_config(path: Path) -> Config:
    """Read and check a config file; raises ConfigError."""
    try:
        values = YAML(typ="safe").load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if not isinstance(values, dict):
        raise ConfigError("must be a map of keys and values, such as 'model: mlp'")
    defaults = asdict(Config())
    for key, value in values.items():
        if key not in defaults:
            raise ConfigError(f"unknown key {key!r}; known are {', '.join(defaults)}")
        values[key] = convert(key, value, type(defaults[key]))
    config = Config(**values)
    if config.model not in MODELS:
        raise ConfigError(f"model must be one of {', '.join(MODELS)}, not {config.model!r}")
    if config.epochs < 1 or config.batch_size < 1 or not 0 < config.train_fraction <= 1:
        raise ConfigError("epochs and batch_size must be at least 1, train_fraction above 0 and at most 1")
    return config  # the models' own parameters are left to scikit-learn, which checks them itself


def convert(key: str, value: object, wanted: type[Any]) -> object:
    """Return a YAML value as the type of its key; an integer will do for a float, and a list for a tuple."""
    if wanted is tuple and isinstance(value, list) and value and all(type(item) is int for item in value):
        return tuple(value)
    if type(value) is wanted or (wanted is float and type(value) is int):
        return wanted(value)
    name = "list of int" if wanted is tuple else wanted.__name__
    raise ConfigError(f"{key} must be of type {name}, not {value!r}")


def load_data(config: Config) -> dict[str, tuple[Array, Array]]:
    """Return the splits train, validation and test as (features, labels), pixels scaled to 0..1."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.2, stratify=y, random_state=SPLIT_SEED)
    x, x_valid, y, y_valid = train_test_split(x, y, test_size=0.25, stratify=y, random_state=SPLIT_SEED)
    count = max(1, round(len(x) * config.train_fraction))
    x, y = x[:count], y[:count]
    if config.augment:
        padded = np.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
        corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]  # of an 8x8 window; the first is the image itself
        x = np.concatenate([padded[:, row : row + 8, col : col + 8].reshape(-1, 64) for row, col in corners])
        y = np.tile(y, len(corners))
    splits = {"train": (x, y), "validation": (x_valid, y_valid), "test": (x_test, y_test)}
    if config.model == "rbf_svm":
        kernel = RBFSampler(gamma=config.rbf_gamma, n_components=config.rbf_features, random_state=config.seed)
        kernel.fit(x)
        splits = {name: (kernel.transform(features), labels) for name, (features, labels) in splits.items()}
    return splits


def build_model(config: Config) -> MLPClassifier | SGDClassifier:
    """Return the untrained classifier that the config asks for."""
    if config.model == "mlp":
        return MLPClassifier(
            config.hidden_layers, learning_rate_init=config.learning_rate, alpha=config.l2, random_state=config.seed
        )
    loss = "log_loss" if config.model == "linear" else "hinge"
    return SGDClassifier(
        loss=loss, learning_rate="constant", eta0=config.learning_rate, alpha=config.l2, random_state=config.seed
    )


def train_loss(config: Config, model: MLPClassifier | SGDClassifier, x: Array, y: Array) -> float:
    """Return the mean loss over the training set: hinge for the SVM, else cross-entropy."""
    if config.model == "rbf_svm":
        return float(hinge_loss(y, model.decision_function(x), labels=CLASSES))
    return float(log_loss(y, model.predict_proba(x), labels=CLASSES))


def show_progress(label: str, done: int, total: int, width: int = 30) -> None:
    """Redraw a bar in place, on a terminal only, and only when it has grown."""
    filled = width * done // total
    if sys.stdout.isatty() and filled != width * (done - 1) // total:
        print(f"\r{label} [{'#' * filled}{'.' * (width - filled)}] {done}/{total}", end="", flush=True)


def train_epoch(config: Config, model: Any, x: Array, y: Array, rng: np.random.Generator, label: str) -> None:
    """Show the model every training image once, in mini-batches of a new random order."""
    order = rng.permutation(len(x))
    starts = range(0, len(x), config.batch_size)
    for done, start in enumerate(starts, 1):
        batch = order[start : start + config.batch_size]
        model.partial_fit(x[batch], y[batch], classes=CLASSES)
        show_progress(label, done, len(starts))


def train(config: Config) -> dict[str, Any]:
    """Train the model, a line an epoch, and return what there is to know about it."""
    data, model, rng = load_data(config), build_model(config), np.random.default_rng(config.seed)
    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        began, label = time.perf_counter(), f"epoch {epoch:3}/{config.epochs}"
        train_epoch(config, model, *data["train"], rng, label)
        loss = train_loss(config, model, *data["train"])
        accuracy = {name: float(model.score(*data[name])) for name in ("train", "validation")}
        seconds = time.perf_counter() - began
        history.append({"epoch": epoch, "loss": loss, **accuracy, "seconds": round(seconds, 3)})
        line = f"{label}  loss {loss:.4f}  train {accuracy['train']:.4f}  validation {accuracy['validation']:.4f}"
        print(f"\r{line}  {seconds:.2f} s" if sys.stdout.isatty() else f"{line}  {seconds:.2f} s", flush=True)
    return {"test_accuracy": float(model.score(*data["test"])), "history": history}


def write_atomically(path: Path, text: str) -> None:
    """Write aside, then rename: whoever looks sees the whole file or none."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train one classifier on the handwritten digits.")
    parser.add_argument("--config_path", type=Path, required=True, metavar="FILE", help="a YAML file of configs/")
    path: Path = parser.parse_args().config_path
    try:
        config = load_config(path)
    except ConfigError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    task = os.environ.get("TINKSCHED_TASK") or path.stem
    output_dir = Path(os.environ.get("TINKSCHED_OUTPUT_DIR") or Path(__file__).parent / "out")
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"{task}: {config.model}, seed {config.seed}, CUDA_VISIBLE_DEVICES={gpu or '(none)'}", flush=True)

    began = time.perf_counter()
    results = train(config)
    seconds = round(time.perf_counter() - began, 2)
    accuracy = results["test_accuracy"]
    print(f"{task}: test accuracy {accuracy:.4f} in {seconds} s", flush=True)
    output_dir.mkdir(parents=True, exist_ok=True)
    metrics = {"task": task, "gpu": gpu, "seconds": seconds, "config": asdict(config), **results}
    write_atomically(output_dir / f"{task}_metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomically(output_dir / f"{task}_completed.txt", f"test_accuracy: {accuracy:.4f}\nseconds: {seconds}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
