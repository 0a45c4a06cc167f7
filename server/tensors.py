"""Named arrays on disk: a safetensors file, whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file


def save_tensors(
    arrays: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write arrays and texts to `path`, which is there as a whole or as it was before.

    Raises:
        OSError: the disk is full, or the folder is not ours to write to.
    """
    partial = path.with_suffix(".part")
    try:
        save_file(dict(arrays), partial, metadata=dict(metadata))
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({error}); make room there and run this again"
        ) from error
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
