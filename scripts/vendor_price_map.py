"""Rewrite sdk/tierlight/_prices/litellm.json.gz from a litellm wheel: `vendor_price_map.py WHEEL YYYY-MM-DD`.

Fetch the wheel outside the checkout (`pip download litellm==VERSION --no-deps`); the package is never
installed. The date is the day the map was taken: it has no history, so earlier calls priced by it are
marked estimated. Name the version in THIRD_PARTY.md.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zipfile
from datetime import date
from pathlib import Path

TARGET = Path(__file__).parent.parent / "sdk/tierlight/_prices/litellm.json.gz"
MODES = {"chat", "responses", "completion", "embedding", "rerank", "audio_transcription", "realtime", None}
PRICE_FIELD = re.compile(
    r"(input|output)_cost_per_token(_above_\d+k_tokens)?(_batches|_flex|_priority)?"
    r"|cache_(read|creation)_input_token_cost(_above_1hr)?(_above_\d+k_tokens)?(_batches|_flex|_priority)?"
    r"|output_cost_per_reasoning_token|(input|output)_cost_per_(audio|image)_token"
    r"|input_cost_per_query|input_cost_per_request"
)


def trim(entry: dict[str, object]) -> dict[str, object]:
    """The fields that price a call or date a model's end; prices only where they are per token or query."""
    kept = {name: entry[name] for name in ("litellm_provider", "mode", "deprecation_date") if entry.get(name)}
    is_priced_by_token = (
        entry.get("mode") in MODES and not {"tiered_pricing", "off_peak_pricing"} & entry.keys()
    )
    if is_priced_by_token:
        kept |= {
            name: value for name, value in entry.items() if PRICE_FIELD.fullmatch(name) and value is not None
        }
    return kept if len(kept) > 2 or "deprecation_date" in kept else {}


def main(wheel: Path, as_of: date) -> None:
    """Trim the map of that wheel and write it, the same bytes for the same wheel."""
    with zipfile.ZipFile(wheel) as archive:
        full = json.loads(archive.read("litellm/model_prices_and_context_window_backup.json"))
    full.pop("sample_spec")
    models = {name: kept for name, entry in sorted(full.items()) if (kept := trim(entry))}
    document = {"version": wheel.name.split("-")[1], "as_of": as_of.isoformat(), "models": models}
    text = json.dumps(document, separators=(",", ":")).encode()
    TARGET.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{len(models)} of {len(full)} models, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), date.fromisoformat(sys.argv[2]))
