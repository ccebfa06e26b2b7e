"""sources, protocols, tokenizers, embeddings, policies, formats: what a recipe may name."""

from dataclasses import asdict
from typing import Any

from sidmill.app import JsonOpt, app
from sidmill.console import print_json, print_table, say


@app.command()
def sources(json: JsonOpt = False) -> None:
    """List the sources: which dumps can be read.

    Their files, what they yield, licence, what the parser was tested on.
    """
    from sid_pipelines.sources import SOURCES

    rows = []
    for kind, source in sorted(SOURCES.items()):
        made = source()
        rows.append(
            {
                "kind": kind,
                "files": source.title,
                "yields": made.yields,
                "licence": source.licence,
                "tested on": source.tested_on,
                "from": source.url,
                "template": source.template,
                "parameters": {name: one for name, one in asdict(made).items() if name[0] != "_"},
            }
        )
    _print_menu(
        rows, "files are read as downloaded: plain, .gz or in a .zip. Options and templates: --json", json
    )


@app.command()
def protocols(json: JsonOpt = False) -> None:
    """List the split protocols, and what each leaks.

    What each holds out, what it leaks, its parameters.
    """
    from sid_pipelines.protocols import PROTOCOLS

    rows = [
        {
            "protocol": name,
            "holds out": (protocol.__doc__ or "").split("\n")[0].rstrip("."),
            "leaks": protocol.leaks,
            "parameters": asdict(protocol()),
        }
        for name, protocol in PROTOCOLS.items()
    ]
    _print_menu(rows, "parameters stand beside the protocol in [split]. Parameters: --json", json)


@app.command()
def tokenizers(json: JsonOpt = False) -> None:
    """List the tokenizers: paper, length, needs, parameters."""
    from sid_tokenizers import TOKENIZERS, Tokenizer

    rows = []
    for name, scheme in sorted(TOKENIZERS.items()):
        made, traits = scheme(), scheme.traits
        length = len(made.levels) if isinstance(made, Tokenizer) else 1
        rows.append(
            {
                "tokenizer": name,
                "paper": scheme.paper,
                "gives": traits.gives,
                "length": f"{length}, fixed" if traits.fixed_length else "varies",
                "ordered": traits.ordered,
                "unique": traits.unique,
                "soft": traits.soft,
                "needs": [*made.needs, *([traits.package] if traits.package else [])],
                "parameters": made.get_params(),
            }
        )
    _print_menu(rows, "length is the default's; give your own in [tokenize]. Parameters: --json", json)


@app.command()
def pieces(json: JsonOpt = False) -> None:
    """List the ways to cut SIDs into pieces.

    [pieces] names them: source, needs, parameters.
    """
    from sid_tokenizers.pieces import PIECES

    rows = [
        {
            "pieces": name,
            "source": way.paper,
            "needs": [way.traits.package] if way.traits.package else [],
            "parameters": way().get_params(),
        }
        for name, way in sorted(PIECES.items())
    ]
    _print_menu(rows, "name them in [pieces] schemes; keys stand beside. Parameters: --json", json)


@app.command()
def embeddings(json: JsonOpt = False) -> None:
    """List what makes vectors: encoders, models, fusions."""
    from sid_pipelines.embedders import menu

    _print_menu(menu(), "name a model in [[embed]], a fusion as [fuse] method. Options: --json", json)


@app.command()
def policies(json: JsonOpt = False) -> None:
    """List the collision policies, and what each promises.

    Source, promise, length, needs, parameters.
    """
    from sid_tokenizers import POLICIES

    rows = [
        {
            "policy": name,
            "source": policy.source,
            "unique": policy.unique,
            "length": policy.length,
            "needs": [*policy.inputs, *(["a tokenizer that decodes"] if policy.needs_reconstruction else [])],
            "parameters": asdict(policy()),
        }
        for name, policy in sorted(POLICIES.items())
    ]
    _print_menu(rows, "L is the tokenizer's length. Parameters: --json", json)


@app.command()
def formats(json: JsonOpt = False) -> None:
    """List the formats of export: whose, what they write.

    An export or [export] names them; their settings are in --json.
    """
    from sid_pipelines.trainers import TRAINERS

    rows = [
        {
            "format": name,
            "trainer": form.trainer,
            "writes": form.says,
            "protocols": list(form.protocols) or ["any"],
            "settings": form.settings().model_dump(mode="json"),
        }
        for name, form in sorted(TRAINERS.items())
    ]
    _print_menu(
        rows, "delta and iceberg are formats of tables. Defaults of settings: --json; --set key=value", json
    )


def _print_menu(rows: list[dict[str, Any]], note: str, json: bool) -> None:
    if json:
        print_json(rows)
        return
    columns = [name for name in rows[0] if name not in ("parameters", "options", "template")]
    print_table(columns, [[_shown(row[name]) for name in columns] for row in rows])
    say(note)


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list | dict) else value
