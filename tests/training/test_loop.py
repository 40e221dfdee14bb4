import json
import signal
import socket

import forked
import pytest
import torch
from places import HELPERS
from tiny_training import learn_alone, logged_losses, main, tiny_model, tiny_objective, tiny_recipe
from two_ranks import run_two_ranks

from ocl_bench.core.errors import UsageError
from ocl_bench.training import fit
from ocl_bench.training import ranks as ranks_module
from ocl_bench.training.checkpoint import load_checkpoint
from ocl_bench.training.ranks import start_ranks


def learn(out, **options):
    recipe = options.pop("recipe", tiny_recipe())
    objective = options.pop("objective", tiny_objective())
    model = options.pop("model", tiny_model())
    return learn_alone(out, model, objective, recipe, **options)


def test_resume_after_kill_9_gives_equal_losses_and_weights(tmp_path, whole):
    killed = forked.run(main, tmp_path, "kill=5")
    assert killed.returncode == -9
    assert load_checkpoint(tmp_path / "last.pt").step == 5
    trained = learn(tmp_path)
    losses, weights = whole
    assert trained.steps == 8 and trained.finished
    assert logged_losses(tmp_path) == pytest.approx(losses, abs=1e-6)
    for name, tensor in load_checkpoint(tmp_path / "last.pt").model.items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=0)


def test_an_interrupt_leaves_a_checkpoint_and_the_same_command_goes_on(tmp_path, whole):
    objective = tiny_objective()
    learn_step = objective.loss

    def loss(model, inputs, fraction):
        if fraction == 3 / 8:
            signal.raise_signal(signal.SIGINT)
        return learn_step(model, inputs, fraction)

    objective.loss = loss
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, objective=objective, recipe=tiny_recipe(checkpoint_every=100))
    assert load_checkpoint(tmp_path / "last.pt").step == 4 and signal.getsignal(signal.SIGINT) is before
    assert learn(tmp_path).finished
    assert logged_losses(tmp_path) == pytest.approx(whole[0], abs=1e-6)


def test_sigterm_saves_a_checkpoint_says_so_and_exits_143(tmp_path, whole, caplog):
    objective = tiny_objective()
    learn_step = objective.loss

    def loss(model, inputs, fraction):
        if fraction == 3 / 8:
            signal.raise_signal(signal.SIGTERM)
        return learn_step(model, inputs, fraction)

    objective.loss = loss
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        learn(tmp_path, objective=objective, recipe=tiny_recipe(checkpoint_every=100))
    assert left.value.code == 143 and "stopped by SIGTERM: step 4 is in " in caplog.text
    assert load_checkpoint(tmp_path / "last.pt").step == 4 and signal.getsignal(signal.SIGTERM) is before
    assert learn(tmp_path).finished
    assert logged_losses(tmp_path) == pytest.approx(whole[0], abs=1e-6)


def test_a_log_has_no_line_twice_when_a_finished_training_is_started_again(tmp_path):
    learn(tmp_path)
    before = (tmp_path / "log.jsonl").read_text()
    assert learn(tmp_path).finished
    lines = (tmp_path / "log.jsonl").read_text()
    assert lines == before and len(set(lines.splitlines())) == len(lines.splitlines())


@pytest.mark.parametrize("rank", ["0", "1"])
def test_variables_of_a_launcher_that_is_gone_are_named_soon(rank, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setattr(ranks_module, "PATIENCE", 1)
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"waits for rank {1 - int(rank)}, which has not started; RANK={rank}.*unset"):
        start_ranks("cpu", "fp32")
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(UsageError, match=r"incomplete \(without MASTER_ADDR\); RANK=.* `unset RANK WORLD_SIZE"):
        start_ranks("cpu", "fp32")


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path, whole):
    learn(tmp_path, recipe=tiny_recipe(checkpoint_every=3), minutes=0)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 1, "loss": 99.0}\n{"step": 2, "lo')
    learn(tmp_path, recipe=tiny_recipe(checkpoint_every=3))
    assert logged_losses(tmp_path) == pytest.approx(whole[0], abs=1e-6)


def test_two_gloo_ranks_learn_like_one(tmp_path, whole):
    learn(tmp_path, objective=tiny_objective("boxes"))
    run_two_ranks(main, tmp_path / "two", "world=2", "kinds=neighbour,boxes")
    assert logged_losses(tmp_path / "two" / "neighbour") == pytest.approx(whole[0], abs=1e-5)
    assert logged_losses(tmp_path / "two" / "boxes") == pytest.approx(logged_losses(tmp_path), abs=1e-5)


def test_sigterm_of_several_ranks_saves_one_checkpoint_and_all_exit_143(tmp_path, whole):
    """A signal reaches the ranks between different steps: all stop after the same one."""
    endings = run_two_ranks(main, tmp_path, "world=2", "term=3", expected=143)
    assert load_checkpoint(tmp_path / "last.pt").step == 4
    assert (tmp_path / "saved.txt").read_text() == "1\n2\n3\n4\n"  # the last one once, and by one rank
    assert sum("stopped by SIGTERM: step 4 is in " in text for text in endings) == 1
    run_two_ranks(main, tmp_path, "world=2")
    assert logged_losses(tmp_path) == pytest.approx(whole[0], abs=1e-5)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(set(lines)) == len(lines) == 10  # 8 steps, and validations after 4 and 8


def test_a_rank_that_was_lost_is_said_in_one_line(tmp_path):
    from dataclasses import replace

    alone = start_ranks("cpu", "fp32")
    said = "[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:17319\nGLHF!"
    two = replace(alone, size=2, rank=1)
    for error in (RuntimeError(said), torch.distributed.DistBackendError("NCCL\ntimeout")):
        said_in_one_line = pytest.raises(UsageError, match=r"^rank 1 of 2: another rank has stopped; .*last\.pt[^\n]*$")
        with said_in_one_line, ranks_module.lost_ranks_named(two, tmp_path):
            raise error
    for ranks, error in ((alone, RuntimeError(said)), (two, RuntimeError("shapes differ"))):
        with pytest.raises(RuntimeError, match=r"gloo|shapes"), ranks_module.lost_ranks_named(ranks, tmp_path):
            raise error


def test_ranks_end_with_0_while_gloo_still_works():
    """Without `_leave_gloo` both abort here: "terminate called without an active exception"."""
    run_two_ranks(forked.script, HELPERS / "leaving_rank.py")


def test_world_size_that_is_not_running_is_refused():
    with pytest.raises(UsageError, match=r"--world-size 2: 1 rank\(s\) are running.*torchrun"):
        start_ranks("cpu", world_size=2)


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"precision": "fp8"}])
def test_unknown_device_and_precision_are_refused(wrong):
    with pytest.raises(UsageError, match="unknown; choose"):
        start_ranks(**wrong)


def test_minutes_stop_with_a_checkpoint_and_the_next_visit_goes_on(tmp_path, whole):
    visits = [learn(tmp_path, recipe=tiny_recipe(checkpoint_every=100), minutes=0) for _ in range(3)]
    assert [visit.steps for visit in visits] == [1, 2, 3]
    assert not visits[-1].finished and visits[2].seconds > visits[1].seconds > visits[0].seconds
    assert learn(tmp_path).finished
    assert logged_losses(tmp_path) == pytest.approx(whole[0], abs=1e-6)


def test_a_finished_training_is_only_validated(tmp_path):
    learn(tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    again = learn(tmp_path)
    assert again.steps == 8 and again.numbers == {"mbo_fg": 0.5}
    assert (tmp_path / "last.pt").read_bytes() == before


@pytest.mark.parametrize(("change", "field"), [({"recipe": tiny_recipe(lr=1e-4)}, "lr"), ({"seed": 1}, "seed")])
def test_checkpoint_of_another_training_is_refused(tmp_path, change, field):
    learn(tmp_path, minutes=0)
    with pytest.raises(UsageError, match=f"last.pt: was trained with {field} = "):
        learn(tmp_path, **change)
    assert learn(tmp_path, resume=False, **change).finished


def test_loss_that_is_not_finite_is_an_error(tmp_path):
    objective = tiny_objective()
    objective.loss = lambda model, inputs, fraction: {"total": next(model.parameters()).sum() * float("nan")}
    with pytest.raises(UsageError, match="loss is not finite at step 0"):
        learn(tmp_path, objective=objective)


def test_validation_happens_in_evaluation_mode_without_gradients(tmp_path):
    seen = []
    objective = tiny_objective()
    objective.validator = lambda model: seen.append((model.training, torch.is_grad_enabled())) or {"mbo_fg": 1.0}
    model = tiny_model()
    learn(tmp_path, objective=objective, model=model)
    assert seen == [(False, False)] * 2  # after steps 4 and 8
    assert model.training
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val" in row] == [4, 8]


def test_the_loss_falls(tmp_path):
    learn(tmp_path, recipe=tiny_recipe(steps=30, lr=5e-3), objective=tiny_objective("boxes", noise=0.0))
    losses = list(logged_losses(tmp_path).values())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_frozen_parameters_do_not_move(tmp_path):
    model = tiny_model()
    model.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learn(tmp_path, model=model, recipe=tiny_recipe(optimizer="adamw", weight_decay=0.1))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not any(name.startswith("stem") for name in moved)


def test_batch_that_cannot_be_split_is_refused(tmp_path):
    from dataclasses import replace

    ranks = replace(start_ranks("cpu", "fp32"), size=3)
    with pytest.raises(UsageError, match="4 images cannot be split over 3 ranks"):
        fit(tiny_model(), tiny_objective(), tiny_recipe(), seed=0, out=tmp_path, ranks=ranks, progress=False)
