#!/usr/bin/env python3
"""A Hydra app: logistic regression on scikit-learn's handwritten digits, by stochastic gradient descent.

Usage: python train.py --config-name smooth model.learning_rate=0.1 seed=3

It knows nothing of tinksched, and writes no completion marker: results go to Hydra's run folder, and exit code 0 is
enough for the scheduler, which writes the marker itself.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

log = logging.getLogger("train")


def train(config: DictConfig) -> dict[str, Any]:
    """Train the model, a line an epoch, and return its accuracies."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.25, stratify=y, random_state=0)
    model = SGDClassifier(
        loss=config.model.loss,
        alpha=config.model.l2,
        learning_rate="constant",
        eta0=config.model.learning_rate,
        random_state=config.seed,
    )
    rng = np.random.default_rng(config.seed)
    for epoch in range(1, config.epochs + 1):
        order = rng.permutation(len(x))
        for batch in np.array_split(order, max(1, len(x) // config.batch_size)):
            model.partial_fit(x[batch], y[batch], classes=np.arange(10))
        log.info("epoch %3d/%d  train %.4f", epoch, config.epochs, model.score(x, y))
    return {"train_accuracy": float(model.score(x, y)), "test_accuracy": float(model.score(x_test, y_test))}


@hydra.main(version_base="1.3", config_path="configs", config_name="_base")
def main(config: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    log.info("results in %s", folder)
    began = time.perf_counter()
    accuracies = train(config)
    seconds = round(time.perf_counter() - began, 2)
    log.info("test accuracy %.4f in %s s", accuracies["test_accuracy"], seconds)
    metrics = {**accuracies, "seconds": seconds, "config": OmegaConf.to_container(config, resolve=True)}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
