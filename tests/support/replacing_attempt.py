"""A child process that replaces a folder by one that says "new", while renames fail.

python replacing_attempt.py TARGET FAULTS THEN

FAULTS is JSON: the error's number, 0 for a kill, by the number of the rename. THEN is JSON: what happens to all later ones, or
null. Prints how many renames there were.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ditzoo.bundle import provide_folder
from tests.support.kills import fail_renames


def main() -> None:
    target = Path(sys.argv[1])
    faults = {int(number): fault for number, fault in json.loads(sys.argv[2]).items()}
    count = fail_renames(target.parent, faults=faults, then=json.loads(sys.argv[3]))
    try:
        with provide_folder(target, overwrite=True) as folder:
            (folder / "says").write_text("new")
    finally:
        sys.stdout.write(f"{count()}\n")


if __name__ == "__main__":
    main()
