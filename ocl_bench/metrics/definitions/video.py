"""Metrics of videos: of tubes (one partition of all frames), of single frames, and the J and F of DAVIS."""

from __future__ import annotations

from ..metric import HIGHER, LOWER, Metric
from ..of_set import Weighted

_FAMILY = ("video",)
_FRAMES_ARI, _FRAMES_MBO, _OBJECTS = Weighted("n_frames_fg_ari"), Weighted("n_frames_mbo"), Weighted("n_objects_jf")
_TUBES = "Kipf et al., SAVi, ICLR 2022, arXiv:2111.12594; Manasyan et al., SlotContrast, arXiv:2412.14295"
_DAVIS = "Pont-Tuset et al., DAVIS 2017 Challenge, arXiv:1704.00675; unsupervised: Caelles et al., arXiv:1905.00737"
_MATCHED = "one matching of truth objects and proposals for each video, by the mean of J and F"
_NO_OBJECT = "not valid without an object"

DEFINITIONS = (
    Metric(
        "mbo_frame",
        _FAMILY,
        "mean best IoU over truth objects of single frames, mean over all frames",
        formula="mbo_fg of each frame, mean over all frames of all videos that have an object",
        edge_cases="frames without an object are left out (with `empty: one` they score 1)",
        source="Pont-Tuset et al., arXiv:1503.00848",
        of_set=_FRAMES_MBO,
    ),
    *(
        Metric(
            name,
            _FAMILY,
            meaning,
            direction,
            low=low,
            best=best,
            formula=f"{formula}; {_MATCHED}; mean over frames, then over all objects of all videos",
            edge_cases=f"{_NO_OBJECT}; an object without a proposal scores 0",
            source=_DAVIS,
            of_set=_OBJECTS,
        )
        for name, meaning, direction, low, best, formula in (
            (
                "jf",
                "DAVIS: mean of J and F, one matching per video, mean over all objects",
                HIGHER,
                0,
                1,
                "(J + F) / 2",
            ),
            ("j", "DAVIS: region similarity (IoU), mean over frames, then over all objects", HIGHER, 0, 1, "IoU"),
            (
                "f",
                "DAVIS: boundary measure, mean over frames, then over all objects",
                HIGHER,
                0,
                1,
                "2 P R / (P + R) of boundary pixels within protocol.boundary of the other boundary",
            ),
            (
                "j_recall",
                "DAVIS: share of frames with J above 0.5, mean over all objects",
                HIGHER,
                0,
                1,
                "share of frames with J > 0.5",
            ),
            (
                "f_recall",
                "DAVIS: share of frames with F above 0.5, mean over all objects",
                HIGHER,
                0,
                1,
                "share of frames with F > 0.5",
            ),
            (
                "j_decay",
                "DAVIS: J of the first quarter of the frames minus the last, mean over all objects",
                LOWER,
                -1,
                0,
                "mean J of the first quarter of the frames minus that of the last",
            ),
            (
                "f_decay",
                "DAVIS: F of the first quarter of the frames minus the last, mean over all objects",
                LOWER,
                -1,
                0,
                "mean F of the first quarter of the frames minus that of the last",
            ),
        )
    ),
    Metric(
        "fg_ari_frame",
        _FAMILY,
        "FG-ARI of single frames, mean over all frames",
        low=-1,
        formula="fg_ari of each frame, mean over all frames of all videos that have an object",
        edge_cases="frames without an object are left out (with `empty: one` they score 1)",
        source="Greff et al., arXiv:1903.00450",
        of_set=_FRAMES_ARI,
    ),
    Metric(
        "fg_ari_video",
        _FAMILY,
        "FG-ARI of tubes: one partition of all frames of a video",
        low=-1,
        formula="fg_ari of all pixels of all frames together, where an id means the same in every frame",
        edge_cases="not valid without an object (with `empty: one` such a video scores 1)",
        source=_TUBES,
        of_set=Weighted(),
    ),
    Metric(
        "mbo_video",
        _FAMILY,
        "mean best IoU over the tubes of truth objects",
        formula="for each truth object: the largest IoU of its tube with that of any slot; mean over objects",
        edge_cases="not valid without an object (with `empty: one` such a video scores 1)",
        source=_TUBES,
        of_set=Weighted(),
    ),
)
