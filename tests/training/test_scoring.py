"""A user's training loop scores a task: the training goes on as if nothing had happened."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from documents import DOCS, blocks
from report_runs import own_images
from torch import Tensor, nn

from ocl_bench import TaskScorer, evaluate
from ocl_bench.core.errors import DataMissingError, UsageError


class Net(nn.Module):
    """Batch norm and dropout: what a score in the wrong mode would change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2))
        self.layers[2].eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"masks": self.layers(images).softmax(1)}


@pytest.fixture
def scorer(tmp_path: Path) -> TaskScorer:
    task = own_images(tmp_path / "images")
    return TaskScorer(task, limit=4, split=None, data_root=tmp_path / "images", masks_from="masks")


def trained(scorer: TaskScorer | None) -> tuple[Net, list[dict[str, float]]]:
    """A training of six steps that scores every second one. Its batches come from torch's generator."""
    net, scores = Net(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(6):
        loss = net(torch.rand(2, 3, 16, 16))["masks"][:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scorer is not None and step % 2 == 1:
            scores.append(scorer(net))
    return net, scores


def test_a_training_goes_the_same_way_with_and_without_scores(scorer: TaskScorer) -> None:
    (alone, _), (scored, scores) = trained(None), trained(scorer)
    assert all(
        torch.equal(one, other)
        for one, other in zip(alone.state_dict().values(), scored.state_dict().values(), strict=True)
    )
    assert [module.training for module in scored.modules()] == [True, True, True, True, False]
    assert len(scores) == 3 and scores[0] != scores[2] and next(iter(scores[0])) == scorer.task.main


def test_scores_are_those_of_evaluate_and_nothing_is_written(
    scorer: TaskScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCL_BENCH_RESULTS", str(tmp_path / "none"))
    net = Net()
    numbers = scorer(net)
    assert not (tmp_path / "none").exists()
    keywords: dict[str, Any] = {"limit": 4, "noise_seeds": (0,), "masks_from": "masks", "progress": False}
    result = evaluate(net, scorer.task, data_root=tmp_path / "images", device="cpu", results=tmp_path / "r", **keywords)
    assert numbers == {name: metric.value for name, metric in result.metrics.items() if metric.value is not None}


def test_missing_data_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError):
        TaskScorer("clevrtex", data_root=tmp_path / "nothing")(Net())


def test_the_documented_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The first block of the page, as it stands there, on images and a card of the names that it uses."""
    (block,) = [body for body in blocks(DOCS / "training.md", "python") if "TaskScorer(" in body]
    task = own_images(tmp_path / "my-images").model_dump(mode="json", exclude_unset=True)
    (tmp_path / "my-task.yaml").write_text(yaml.safe_dump(task))
    monkeypatch.chdir(tmp_path)
    net = Net()
    batches = [torch.rand(2, 3, 16, 16)] * 100
    names = {"model": net, "optimizer": torch.optim.Adam(net.parameters()), "batches": batches}
    exec(compile(block, "training.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("100 {'mbo_fg': 0.") and len(printed.splitlines()) == 1


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The callback, over a stand-in of Lightning whose `Callback` has nothing."""
    package = ModuleType("lightning.pytorch")
    package.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    for name, module in (("lightning", ModuleType("lightning")), ("lightning.pytorch", package)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "ocl_bench.training.lightning", raising=False)
    import ocl_bench.training.lightning as module

    yield module
    sys.modules.pop("ocl_bench.training.lightning")


def test_the_callback_scores_every_n_steps_once(lightning: Any, scorer: TaskScorer) -> None:
    """Gradients of two batches are one step; a rank that is not the first one logs what it is told."""
    net, logged = Net(), []
    net.log_dict = logged.append  # type: ignore[assignment]
    told = {"mbo_fg": 0.25}
    for first in (True, False):
        callback = lightning.ScoreTask(scorer, every=2)
        strategy = SimpleNamespace(broadcast=lambda numbers: numbers or told)
        for batch in range(8):
            trainer = SimpleNamespace(global_step=(batch + 1) // 2, is_global_zero=first, strategy=strategy)
            callback.on_train_batch_end(trainer, net, None, None, batch)
    assert len(logged) == 4
    assert logged[0] == {f"own-images/{name}": value for name, value in scorer(net).items()}
    assert logged[2] == {"own-images/mbo_fg": 0.25}
    with pytest.raises(UsageError, match="expected 1 or more"):
        lightning.ScoreTask(scorer, every=0)


def test_without_lightning_the_remedy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ocl_bench.training.lightning", raising=False)
    with pytest.raises(ImportError, match="pip install lightning"):
        import ocl_bench.training.lightning  # noqa: F401
