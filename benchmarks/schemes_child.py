"""What schemes.py measures, in a process of its own: WAREHOUSE nothing|embed|release PRESET [key=value]..."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import Run, run_chain  # noqa: E402


def facts_of(run: Run) -> dict[str, object]:
    release = run.release
    fitted, resolved = release.metrics["tokenizer"], release.metrics["collisions"]
    lengths = sorted({len(sid) for sid in release.table("sids", ["sid"])["sid"].to_pylist()})
    purity = (resolved["category_purity"] or [{}])[0]
    error = (fitted["reconstruction"] or {}).get("fit") or {}
    made = run.outputs["tokenize"].manifest["seconds"] + run.outputs["collisions"].manifest["seconds"]
    return {
        "tokenizer": fitted["tokenizer"],
        "length": "-".join(str(one) for one in sorted({lengths[0], lengths[-1]})),
        "before": f"{resolved['before']['collision_rate']:.1%}",
        "after": f"{resolved['after']['collision_rate']:.1%}",
        "used": "/".join(f"{one['used'] / one['codes']:.2f}" for one in fitted["levels"][:6]),
        "error": error.get("relative_error"),
        "cosine": resolved["neighbour_overlap_at_10"],
        "users": resolved["cf_neighbour_overlap_at_10"],
        "purity": f"{purity['purity']:.2f} ({purity['shuffled']:.2f})" if purity else None,
        "fit_seconds": made,
    }


def main() -> None:
    warehouse, task, name, *given = sys.argv[1:]
    if task == "nothing":
        print(json.dumps({}))
        return
    recipe = ROOT / "examples" / "schemes" / f"{name}.toml"
    if task == "embed":
        run_chain(recipe, Path(warehouse), *given, until="fuse")
        print(json.dumps({}))
        return
    print(json.dumps(facts_of(run_chain(recipe, Path(warehouse), *given))))


if __name__ == "__main__":
    main()
