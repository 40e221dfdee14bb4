"""Stand-ins: scenes that are rendered on this machine and written in the official layout, for the same reader."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UsageError
from ...core.log import progress_bar
from ...core.paths import cache_root
from ...core.processors import processors
from ..base import Request
from ..rendered import ensure_files
from .clevrtex import CHUNK, WriteJob, scene_files
from .processes import cannot_write, share_out

IMAGE_SIZE = 160
"""Side of a rendered image in pixels: the official 0.8 crop is then 128 x 128 without resampling."""

_WORTH_A_PROCESS = 8 * CHUNK
"""Fewer scenes than this are rendered in this process alone: starting torch in another one takes as long."""


@dataclass(frozen=True)
class StandInTree:
    """One rendered split in the cache, `stand-ins/clevrtex/<variant>-r<revision>/<split>[-seed<N>]`.

    first: scene number of scene 0, which puts the numbers into the range of the official split.
    """

    variant: str
    revision: int
    split: str
    seed: int = 0
    first: int = 0

    @property
    def folder(self) -> Path:
        """The folder `clevrtex_<variant>`, which holds the shards."""
        split = self.split if self.seed == 0 else f"{self.split}-seed{self.seed}"
        release = f"{self.variant}-r{self.revision}"
        return cache_root() / "stand-ins" / "clevrtex" / release / split / f"clevrtex_{self.variant}"

    @property
    def revision_name(self) -> str:
        """`embedded-r<revision>-<8 digits>`. The digits are a hash of what is rendered, which determines all files."""
        identity = f"clevrtex|{self.variant}|{self.revision}|{self.split}|{self.seed}|{IMAGE_SIZE}"
        return f"embedded-r{self.revision}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"

    def ensure(self, count: int, *, progress: bool = True, verify: bool = False) -> Path:
        """Render those of the first `count` scenes that are not there as they were rendered, and return the folder.

        A scene is a pure function of its number: a run that was killed continues where it stopped, and a later call
        with a larger count adds the rest. Each file is written atomically, the image last.

        Args:
            count: number of scenes.
            progress: draw a progress bar.
            verify: read all files, see `ensure_files`.

        Raises:
            UsageError: the cache cannot be written, or this version does not render the revision.
        """
        scenes = {name: i for i in range(count) for name in scene_files(self.variant, self.first + i)}

        def render(names: Sequence[str]) -> None:
            self._render(sorted({scenes[name] for name in names}), progress)

        try:
            ensure_files(self.folder, scenes, render, verify=verify)
        except OSError as error:
            raise cannot_write(error.filename or str(self.folder), error.strerror or str(error)) from error
        return self.folder

    def _render(self, pending: Sequence[int], progress: bool) -> None:
        self._check_revision()
        jobs = [self._job(pending[start : start + CHUNK]) for start in range(0, len(pending), CHUNK)]
        helpers = processors() - 1 if len(pending) >= _WORTH_A_PROCESS else 0
        with progress_bar(f"rendering {self.variant}/{self.split}", len(pending), progress, "scenes") as advance:
            share_out(jobs, advance, helpers)

    def _check_revision(self) -> None:
        from .. import scenes

        if self.revision not in scenes.REVISIONS.get(self.variant, ()):
            rendered = scenes.REVISIONS.items()
            known = ", ".join(f"{variant} {' and '.join(map(str, numbers))}" for variant, numbers in rendered)
            raise UsageError(
                f"data.stand_in: variant '{self.variant}' revision {self.revision} is not rendered by this version; "
                f"it has {known}"
            )

    def _job(self, indices: Sequence[int]) -> WriteJob:
        return WriteJob(
            folder=str(self.folder),
            variant=self.variant,
            revision=self.revision,
            split=self.split,
            seed=self.seed,
            size=IMAGE_SIZE,
            first=self.first,
            indices=tuple(indices),
        )


def check_scenes(request: Request, kind: str) -> None:
    """Refuse a card whose `data.stand_in.scenes` are not those that its variant belongs to.

    Args:
        request: has the card.
        kind: the scenes of the variant.

    Raises:
        UsageError: names both.
    """
    card = request.data.stand_in
    if card is not None and card.scenes != kind:
        raise UsageError(
            f"task '{request.task.name}': data.stand_in.scenes: '{card.scenes[:40]}' has no variant "
            f"'{card.variant[:40]}'; it belongs to '{kind}'"
        )
