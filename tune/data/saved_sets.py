"""Data sets that the `datasets` library opens itself: a folder that it saved, and an id on the hub.

What becomes of their rows differs from task to task; how they are opened, and how it fails, does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.reading import datasets_library, quiet_datasets


def open_saved(folder: Path) -> Any:
    """Open what `save_to_disk` wrote: a `datasets.Dataset` or `DatasetDict`.

    Raises:
        DataError: it cannot be opened.
    """
    with quiet_datasets() as library:
        try:
            return library.load_from_disk(str(folder), keep_in_memory=True)
        except (OSError, ValueError, KeyError, library.exceptions.DatasetsError) as error:
            raise DataError(
                f"{folder} looks like a saved data set and cannot be opened: {error}.",
                expected="a folder that datasets' save_to_disk wrote.",
                action="save it again.",
            ) from error


def open_from_hub(name: str) -> Any:
    """Load a data set from the hub, or from the cache that an earlier load of it filled; as `open_saved`.

    Raises:
        DataError: there is none of that name, or the hub is out of reach.
    """
    library = datasets_library()
    try:
        return library.load_dataset(name)
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"There is neither a file nor a folder {name} here, and no data set of that name could be loaded "
            f"from the hub: {reason.rstrip('.')}.",
            expected="a file, a folder, or the id of a data set on the hub.",
            action="check the path; for the hub, check the id and the network.",
        ) from error
