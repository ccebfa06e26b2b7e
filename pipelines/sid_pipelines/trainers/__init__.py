"""Trainers' formats: a release as the files that somebody else's trainer reads, unchanged.

A new format is one file with a `FORMAT` and one line here. What each trainer demands, and whose own reader
ran on our files, is in docs/trainers.md.
"""

from collections.abc import Mapping

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats import (
    actionpiece,
    ada_retrieval,
    alpharec,
    baskets,
    colarec,
    dare,
    ddro,
    discrec,
    documents,
    domains,
    events,
    flashrec,
    gream,
    grid,
    hf,
    hstu,
    human_priors,
    hype,
    identities,
    lc_rec,
    letter,
    merlin,
    minionerec,
    mmgrec,
    mult_vae,
    ngcf,
    openonerec,
    openp5,
    prism,
    recbole,
    recformer,
    recgpt,
    rl,
    rqvae_recommender,
    sessions,
    setrec,
    sft,
    slates,
    suggestions,
    timeline,
    torcheasyrec,
    uditsr,
    unigrec,
    unimp,
)
from sid_pipelines.trainers.writing.folder import Folder

__all__ = ["TRAINERS", "Feed", "Folder", "Format", "Settings"]

TRAINERS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        actionpiece,
        ada_retrieval,
        alpharec,
        baskets,
        colarec,
        dare,
        ddro,
        discrec,
        documents,
        domains,
        events,
        flashrec,
        gream,
        grid,
        hf,
        hstu,
        human_priors,
        hype,
        identities,
        lc_rec,
        letter,
        merlin,
        minionerec,
        mmgrec,
        mult_vae,
        ngcf,
        openonerec,
        openp5,
        prism,
        recbole,
        recformer,
        recgpt,
        rl,
        rqvae_recommender,
        sessions,
        setrec,
        sft,
        slates,
        suggestions,
        timeline,
        torcheasyrec,
        uditsr,
        unigrec,
        unimp,
    )
}
