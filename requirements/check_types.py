"""How completely a package is typed, as pyright counts it: `check_types.py PYRIGHT PACKAGE PERCENT`.

Counted is what others can see: everything that no name with an underscore hides. Ends with 1 if it is less than so many
percent, and lists what is not typed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(pyright: str, package: str, percent: str) -> int:
    """Print the share that is typed; return whether it is too little."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    command = [Path(pyright).absolute(), "--verifytypes", package, "--ignoreexternal", "--outputjson"]
    # Not from the root of the repository, which pyright would take for the package.
    with tempfile.TemporaryDirectory() as elsewhere:
        result = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    try:
        typed = json.loads(result.stdout)["typeCompleteness"]
    except ValueError:
        print(result.stdout, result.stderr, file=sys.stderr)
        return 1
    visible = [symbol for symbol in typed["symbols"] if symbol["isExported"]]
    for symbol in visible:
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]:
            for diagnostic in symbol["diagnostics"]:
                print(f"{symbol['name']}: {diagnostic['message'].splitlines()[0]}")
    share = 100 * typed["completenessScore"]
    print(f"{share:.1f} % of {len(visible)} symbols are typed, at least {percent} % shall be")
    return int(not visible or share < float(percent))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
