"""Batches made on the device against those of the loader, and what one training step may do on a GPU."""

import io

import albumentations
import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from foldmark.core import geometry
from foldmark.core.config import AugmentConfig, Config, check_config
from foldmark.data.crops import open_store, warp
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.models.device import Speed
from foldmark.models.net import build_model
from foldmark.runs.places import Places
from foldmark.runs.run import Run
from foldmark.runs.run_folder import RunFolder
from foldmark.train.batches import TrainingFaces, load_batches
from foldmark.train.device_batches import PlanOnDevice, apply_photometric, cut_batch, cut_batches, put_plan
from foldmark.train.fold_data import prepare_fold
from foldmark.train.plan import Photometric, Plan, jitter_affines, plan_epoch, plan_order, plan_photometric
from foldmark.train.state import TrainState, compute_losses, new_state, predict_batch, training_step

CPU = torch.device("cpu")
ALL = {"blur": 0.5, "noise": 0.5, "occlude": 0.5}


def make_run(synthetic_root, tmp_path, **train) -> Run:
    settings = {
        "model": {"name": "cnn", "head": "flat", "channels": [4, 8], "hidden": 16},
        "crop": {"size": 64},
        "augment": ALL,
        "train": {"epochs": 3, "batch": 6, **train},
    }
    config = check_config(settings, "test")
    faces = read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    places = Places(tmp_path)
    store = open_store(faces, config.crop, places.cache)
    return Run(RunFolder(places.run("a")), config, faces, np.arange(len(faces)) % 3, store, places)


@pytest.fixture
def run(synthetic_root, tmp_path) -> Run:
    return make_run(synthetic_root, tmp_path)


def still(count: int) -> Photometric:
    zero = np.zeros(count)
    return Photometric(zero + 1, zero, zero, zero, zero.astype(int), np.zeros((count, 4), int), zero)


def test_a_thousand_affines_resample_as_cv2_does(run):
    store, size, rng = run.store, (64, 64), np.random.default_rng(0)
    crops, rows = np.stack([store[row] for row in range(len(store))]), rng.integers(len(store), size=1000)
    centre = np.repeat(geometry.centre_affine(store.size, size)[None], 1000, axis=0)
    affines, _ = jitter_affines(AugmentConfig(rotate=45, scale=0.3, shift=0.1), centre, size, rng, np.ones(1000))
    expected = np.stack([warp(crops[row], affine, size) for row, affine in zip(rows, affines, strict=True)])
    points_store = rng.uniform(0, min(store.size), (1000, 68, 2))
    points_crop = geometry.apply(affines, points_store)
    plan = put_plan(Plan(affines, points_crop.astype(np.float32), still(1000)), store.size, size, CPU)
    made = cut_batch(torch.from_numpy(crops)[:, None], torch.from_numpy(rows), plan, size)[:, 0].numpy()
    difference = np.abs(made.astype(int) - expected)
    # Where a pixel comes from beyond the store crop both repeat its edge, but cv2 blends with it differently.
    inside = geometry.apply(geometry.invert(affines), np.stack(np.meshgrid(range(64), range(64)), axis=-1).reshape(1, -1, 2))
    inside = ((inside >= 0) & (inside <= np.array(store.size) - 1)).all(axis=2).reshape(difference.shape)
    assert difference[inside].mean() < 0.5
    assert (difference[inside] < 3).mean() > 0.999
    # The places that are sampled are those that the affines say.
    places = torch.einsum("nij,nkj->nki", plan.sampling[:, :, :2].double(), plan.points_crop.double() / 31.5 - 1)
    places = (places + plan.sampling[:, None, :, 2] + 1) * (torch.tensor(store.size) - 1) / 2
    assert np.abs(places.numpy() - points_store).max() < 1e-3
    assert np.abs(geometry.apply(affines, points_store) - plan.points_crop.numpy()).max() < 1e-4


def describe(crops: np.ndarray) -> dict[str, np.ndarray]:
    """Of crops (n, height, width): brightness, contrast, and sharpness, which blur lowers and noise raises."""
    return {
        "brightness": crops.mean(axis=(1, 2)),
        "contrast": crops.std(axis=(1, 2)),
        "sharpness": np.array([cv2.Laplacian(crop, cv2.CV_64F).std() for crop in crops]),
        "grey levels": np.array([len(np.unique(crop)) for crop in crops]),
    }


@pytest.mark.parametrize("only", ["brightness", "contrast", "blur", "noise", "occlude"])
def test_light_is_distributed_as_albumentations_own(run, only):
    count, size = 600, (64, 64)
    config = AugmentConfig(
        **{key: 0.0 for key in ("brightness", "contrast", "blur", "noise", "occlude") if key != only},
        **({only: 1.0} if only in ("blur", "noise", "occlude") else {}),
    )
    picture = warp(run.store[0], geometry.centre_affine(run.store.size, size), size)
    patch = (size[0] // 10, size[0] // 3)
    theirs = albumentations.Compose(
        [
            albumentations.RandomBrightnessContrast(config.brightness, config.contrast, p=1),
            albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5), p=config.blur),
            albumentations.GaussNoise(std_range=(0.01, 0.06), p=config.noise),
            albumentations.CoarseDropout((1, 1), patch, patch, fill="random_uniform", p=config.occlude),
        ]
    )
    theirs.set_random_seed(1)
    expected = np.stack([theirs(image=picture[..., None])["image"][..., 0] for _ in range(count)])
    plan = Plan(
        np.repeat(geometry.centre_affine(size, size)[None], count, 0),
        np.zeros((count, 1, 2), np.float32),
        plan_photometric(config, size, count, [0]),
    )
    numbers = put_plan(plan, size, size, CPU)
    copies = torch.from_numpy(picture).float().expand(count, 1, *size[::-1])
    ours = apply_photometric(copies, numbers.photometric, numbers.seeds)[:, 0].numpy()
    for name, values in describe(ours).items():
        assert ks_2samp(values, describe(expected)[name]).pvalue > 0.001, name


def test_the_device_makes_the_batches_of_the_loader(run):
    data = prepare_fold(run, 1)
    loaded, cut = load_batches(TrainingFaces(run, data), 0, CPU), cut_batches(run, data, 0, CPU)
    differences = []
    for one, other in zip(loaded, cut, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.points_crop, other.points_crop)
        differences.append((one.crops.int() - other.crops.int()).abs().float().mean())
    assert len(differences) == 3 * (32 // 6)
    assert max(differences) < 1


@pytest.mark.parametrize("make", ["loader", "loader processes", "device", "device, streamed"])
def test_from_any_step_on_the_batches_are_the_same(synthetic_root, tmp_path, make):
    run = make_run(synthetic_root, tmp_path, workers=2 if make == "loader processes" else 0)
    data, crop_bytes = prepare_fold(run, 0), run.store.size[0] * run.store.size[1]

    def batches(first_step: int, *, streamed: bool = False) -> list:
        if make.startswith("loader"):
            return list(load_batches(TrainingFaces(run, data), first_step, CPU))
        return list(cut_batches(run, data, first_step, CPU, 2 * 6 * crop_bytes if streamed else None))

    whole = batches(0)
    for first_step in (0, 3, 5, 8):
        rest = batches(first_step, streamed="streamed" in make)
        assert len(rest) == len(whole) - first_step
        for one, other in zip(rest, whole[first_step:], strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_the_plan_does_not_depend_on_the_fold_and_changes_with_the_epoch(run):
    one, other = (plan_epoch(run, prepare_fold(run, fold), 1).photometric for fold in (0, 1))
    assert np.array_equal(one.contrast, other.contrast)
    assert not np.array_equal(one.contrast, plan_epoch(run, prepare_fold(run, 0), 2).photometric.contrast)
    data = prepare_fold(run, 0)
    order = plan_order(run, data, 0)
    assert set(order.ravel()) <= set(data.training_rows)
    assert len(set(order.ravel())) == order.size


RESNET = {"crop": {"size": 64}, "model": {"head": "cells"}, "train": {"batch": 4, "loss": "euclidean"}}


def pretend_step(config: Config, *, read: bool = False, plan_device: str = "cuda") -> torch.Tensor:
    """Gather, augment, forward and loss on tensors that pretend to be on a CUDA device."""
    size = config.crop.size
    model = build_model(config, torch.zeros(68, 2), seed=0).train()
    with FakeTensorMode():
        for module in model.modules():
            for named in (module._parameters, module._buffers):
                for name, value in named.items():
                    if value is not None:
                        named[name] = torch.empty(
                            value.shape, dtype=value.dtype, device="cuda", requires_grad=value.requires_grad
                        )
        state = TrainState(model, model, None, Speed(channels_last=False), None, model)
        store, rows = (torch.empty(10, 1, 96, 96, dtype=torch.uint8, device="cuda"), torch.empty(4, dtype=int, device="cuda"))
        shapes = {"sampling": (10, 2, 3), "points_crop": (10, 68, 2), "photometric": (10, 9)}
        plan = PlanOnDevice(
            **{name: torch.empty(shape, device=plan_device) for name, shape in shapes.items()},
            seeds=torch.empty(10, dtype=int, device="cuda"),
        ).take(rows)
        points_crop = predict_batch(state, cut_batch(store, rows, plan, size))
        losses = compute_losses(config, points_crop, plan.points_crop)
        if read:
            losses.mean().item()
        return losses


def test_a_step_reads_nothing_from_a_gpu_and_mixes_no_devices():
    losses = pretend_step(check_config(RESNET, "test"))
    assert (losses.device.type, losses.shape) == ("cuda", (4,))
    with pytest.raises(DataDependentOutputException):
        pretend_step(check_config(RESNET, "test"), read=True)
    with pytest.raises(RuntimeError, match="device"):
        pretend_step(check_config(RESNET, "test"), plan_device="cpu")


def test_the_model_is_one_graph():
    config = check_config(RESNET, "test")
    state = new_state(config, np.zeros((68, 2)), 0, Speed(channels_last=False), CPU)
    crops = torch.randint(256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state.model.eval()
    compiled = torch.compile(state.model, backend="aot_eager", fullgraph=True, dynamic=False)
    assert torch.allclose(compiled(crops), state.model(crops), atol=1e-3)


def test_fp16_gradients_that_overflow_are_skipped_and_training_resumes_to_the_same_bits():
    config = check_config({**RESNET, "model": {"name": "cnn", "head": "flat", "channels": [4, 8]}}, "test")
    crops = torch.randint(256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    arguments = (config, crops, torch.full((4, 68, 2), 30.0), torch.ones(4))

    def new():
        return new_state(config, np.full((68, 2), 32.0), 0, Speed(channels_last=False, precision="fp16"), CPU)

    state = new()
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**60})
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    loss, _ = training_step(state, *arguments)
    assert loss.isfinite()
    assert state.scaler.get_scale() == 2.0**59
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    for _ in range(50):
        training_step(state, *arguments)
    assert state.scaler.get_scale() < 2.0**40
    assert not all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    kept = torch.load(save(state.state_dict()), weights_only=True)
    resumed = new()
    resumed.load_state_dict(kept)
    for one in (state, resumed):
        for _ in range(3):
            training_step(one, *arguments)
    assert resumed.scaler.get_scale() == state.scaler.get_scale()
    assert all(torch.equal(value, resumed.model.state_dict()[name]) for name, value in state.model.state_dict().items())


def save(state: dict) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer
