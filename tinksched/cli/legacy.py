"""The call of the old scheduler's main program: `tinksched CONFIG_FILE WORKSPACE_DIR COMMAND [ARGS]`."""

from __future__ import annotations

import os
from collections.abc import Sequence


def translate(arguments: Sequence[str]) -> list[str]:
    """The old direct form as `--config CONFIG_FILE --workspace WORKSPACE_DIR COMMAND [ARGS]`; anything else as it is.

    It is the old form if the first argument is a file that ends in .yml or .yaml, and the second a folder. No command
    has such a name, so that nothing else can be taken for it.
    """
    if len(arguments) < 2:
        return list(arguments)
    config, workspace, *rest = arguments
    if config.endswith((".yml", ".yaml")) and os.path.isfile(config) and os.path.isdir(workspace):
        return ["--config", config, "--workspace", workspace, *rest]
    return list(arguments)
