"""The loop: bit-identical for a seed, after a kill, and close to itself over two processes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from cspine.config import Config, Model, Train
from cspine.engine.distributed import World, choose_device, join_world
from cspine.engine.loader import EpochSampler
from cspine.engine.loop import fit, predict
from cspine.errors import UserError
from cspine.models.backbones import create_backbone, feature_count

ALONE = World(0, 1, torch.device("cpu"))


class Blobs:
    """Noise images whose mean tells the class; augmentation adds noise that follows from the seed."""

    def __init__(self, count: int = 70) -> None:
        rng = np.random.default_rng(0)
        self.targets = rng.integers(0, 2, count).astype(np.float32)
        self.images = rng.normal(self.targets[:, None, None, None], 1, (count, 1, 8, 8)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, seed = key
        image = self.images[index]
        if seed >= 0:
            image = image + np.random.default_rng(seed).normal(0, 0.1, image.shape).astype(np.float32)
        return {"image": torch.from_numpy(image), "target": torch.tensor(self.targets[index])}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self))


class Toy:
    """A task small enough for a test; dropout and batch norm make it depend on all the state there is."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.seen = fail_at, 0

    def training_samples(self) -> Blobs:
        return Blobs()

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 1)
        )

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen += 1
        if self.seen == self.fail_at:
            raise KeyboardInterrupt
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], batch["target"])


def config(**changes: object) -> Config:
    settings = Train(epochs=3, batch_size=8, max_rate=1e-2, ema_decay=0.9, checkpoint_every=2)
    made = Config(name="toy", task="toy", train=replace(settings, **changes))  # type: ignore[arg-type]
    return replace(made, data=replace(made.data, workers=0))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def train(folder: Path, task: Toy | None = None, resume: bool = False, **changes: object) -> torch.Tensor:
    folder.mkdir(exist_ok=True)
    return weights(fit(task or Toy(), config(**changes), folder, ALONE, resume))


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(tmp_path: Path) -> None:
    first = train(tmp_path / "a")
    assert torch.equal(first, train(tmp_path / "b"))
    assert not torch.equal(first, train(tmp_path / "c", seed=1))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_result(tmp_path: Path, workers: int) -> None:
    plain = config()
    with_workers = replace(plain, data=replace(plain.data, workers=workers))
    (tmp_path / "w").mkdir()
    model = fit(Toy(), with_workers, tmp_path / "w", ALONE)
    assert torch.equal(weights(model), train(tmp_path / "a"))


class Encoded(Toy):
    """As a model of ours, with an encoder of timm that drops paths."""

    def model(self) -> nn.Module:
        encoder = create_backbone(Model(backbone="test_resnet", drop_path=0.5), 1)
        return nn.Sequential(encoder, nn.Dropout(0.3), nn.Linear(feature_count(encoder), 1))


OPTIONS: dict[str, tuple[type[Toy], dict[str, object]]] = {
    "ema": (Toy, {}),
    "cosine": (Toy, {"schedule": "cosine", "warmup": 0.3}),
    "mean": (Toy, {"average_last": 2, "ema_decay": 0.0}),
    "layers": (Encoded, {"layer_decay": 0.5}),
}


@pytest.mark.parametrize(
    ("option", "fail_at"),
    [*(("ema", fail_at) for fail_at in (1, 4, 8, 9, 10, 17, 24)),
     ("cosine", 12), ("mean", 12), ("mean", 20), ("layers", 12)],
)  # fmt: skip
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, option: str, fail_at: int) -> None:
    task, changes = OPTIONS[option]
    whole = train(tmp_path / "whole", task(), **changes)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", task(fail_at), **changes)
    resumed = train(tmp_path / "cut", task(), resume=True, **changes)
    assert torch.equal(resumed, whole)
    ours, theirs = ((tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("cut", "whole"))
    assert [row.split(",")[:3] for row in ours] == [row.split(",")[:3] for row in theirs]


def test_accumulation_equals_the_larger_batch(tmp_path: Path) -> None:
    # Batch norm sees the small batches, so this holds only for a model without it.
    class Plain(Toy):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

    large = train(tmp_path / "large", Plain(), batch_size=16, clip_norm=None)
    small = train(tmp_path / "small", Plain(), batch_size=8, accumulate=2, clip_norm=None)
    # The sums are taken in another order: float32 rounding, not more.
    assert torch.allclose(large, small, atol=1e-5)


def test_it_learns_and_predicts_in_order(tmp_path: Path) -> None:
    samples = Blobs()
    model = fit(Toy(), config(epochs=8, ema_decay=0.0), tmp_path, ALONE)
    logits = predict(model, samples, config(), ALONE)
    assert logits.shape == (70, 1)
    assert ((logits[:, 0] > 0) == (samples.targets > 0.5)).mean() > 0.9


def test_a_loss_that_is_not_a_number_stops_with_advice(tmp_path: Path) -> None:
    class Broken(Toy):
        def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return super().loss(outputs, batch) * float("nan")

    with pytest.raises(UserError, match=r"the loss became nan in epoch 1, batch 1; lower train\.max_rate"):
        train(tmp_path, Broken())


def test_a_damaged_checkpoint_and_another_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Toy(12))
    with pytest.raises(UserError, match="another config"):
        train(tmp_path, resume=True, max_rate=2e-2)
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        train(tmp_path, resume=True)


def test_every_process_gets_equally_many_different_samples() -> None:
    samples = Blobs(71)
    parts = [EpochSampler(samples, 0, 1, World(rank, 2, torch.device("cpu")), 8).keys for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 32
    assert len({index for part in parts for index, _ in part}) == 64


def test_asking_for_a_device_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device=cuda"):
        choose_device("cuda")


def test_a_world_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with join_world("cpu", others=10_000):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def _train_in_process(rank: int, folder: Path, port: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        model = fit(_NoBatchNorm(), config(batch_size=4, ema_decay=0.0), folder, world)
        logits = predict(model, Blobs(), config(), world)
    if rank == 0:
        torch.save({"weights": weights(model), "logits": logits}, folder / "result.pt")


class _NoBatchNorm(Toy):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1))


def test_two_processes_equal_one_at_the_same_global_batch(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = fit(_NoBatchNorm(), config(batch_size=8, ema_decay=0.0), tmp_path / "one", ALONE)
    port = 20000 + os.getpid() % 20000
    mp.spawn(_train_in_process, (tmp_path / "two", port), nprocs=2)
    two = torch.load(tmp_path / "two" / "result.pt", weights_only=False)
    # Gradients are summed in another order: float32 rounding over 24 steps.
    assert torch.allclose(weights(one), two["weights"], atol=1e-4)
    assert np.allclose(predict(one, Blobs(), config(), ALONE), two["logits"], atol=1e-3)
