"""Model folders: the one door to the Hugging Face hub, and what a folder may not bring, which is code."""

from pathlib import Path
from typing import Any

from sid_schemas import MissingExtraError, SourceError
from sid_warehouse import files


def snapshot(name: str, revision: str, *, looked: str, advice: str) -> Path:
    """Download a model, or find it in the hub's own cache. revision: "" for the newest.

    looked: where else we have looked, for the message. Raises SourceError with `advice` where it is not to
    be had, MissingExtraError without the hub's client.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtraError(f"The model {name!r} (huggingface_hub)", "text") from error
    disable_progress_bars()
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except Exception as error:  # the hub client raises a dozen kinds; all mean: not to be had
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise SourceError(
            f"[[embed]] model = {name!r}: {looked}, and not to be had from the hub ({reason}). {advice}"
        ) from error


def modules_of(folder: Path) -> list[dict[str, Any]]:
    """Give the modules of a sentence-transformers folder; none where it is another kind of folder.

    Raises SourceError for one with code of its own: sentence-transformers runs a local folder's modules
    whatever trust_remote_code says.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    modules: list[dict[str, Any]] = files.read_json(path)
    if own := [one for one in modules if not str(one["type"]).startswith("sentence_transformers.")]:
        raise SourceError(
            f"{path}: {own[0]['type']!r} is code of the model's own, which is not run here; expected modules "
            "of sentence_transformers alone. Choose another model"
        )
    return modules
