"""Image encoders from timm, and from torchvision what timm lacks, for any number of input channels."""

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models import adapt_input_conv
from torch import nn

from cspine.config import Model
from cspine.errors import UserError, nearest
from cspine.models import torchvision_encoders
from cspine.models.weights import read_encoder

HUB = ("huggingface.co", 443)
# The names of the 14 models of the report (README, the method, phase 2) and what `model.backbone` calls them.
REPORT = {
    "AlexNet": "alexnet",
    "VGG16-BN": "vgg16_bn",
    "ResNet50": "resnet50",
    "ResNeXt50-32x4d": "resnext50_32x4d",
    "GoogLeNet": "googlenet",
    "InceptionV3": "inception_v3",
    "DenseNet121": "densenet121",
    "EfficientNetV2-S": "tf_efficientnetv2_s",
    "MobileNetV3-Large": "mobilenetv3_large_100",
    "ConvNeXt-S": "convnext_small",
    "MNASNet 1.3": "mnasnet1_3",
    "ShuffleNetV2 x2.0": "shufflenet_v2_x2_0",
    "Swin-S": "swin_small_patch4_window7_224",
    "RegNetY-8GF": "regnety_080",
}
# What makes a timm family that is built for one image size take any, by the file that defines it.
ANY_SIZE = {
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "deit": {"dynamic_img_size": True},
    "vision_transformer": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
}
SIZES_PX = (32, 48, 64, 75, 80, 96, 112, 128, 160, 192, 224, 256, 299, 320, 336, 384, 448, 512)


def create_backbone(settings: Model, channels: int) -> nn.Module:
    """A model that maps (n, channels, y, x) to (n, feature_count): timm's of this name, else torchvision's.

    Pre-trained first convolutions are adapted to `channels` by timm's rule: summed for one channel, else repeated and
    scaled, so that a grey image in all channels excites them alike (exactly for 1, 3, 6, 9, ...). Raises UserError for
    an unknown name, a missing or unfitting weight file, `imagenet` without a network, `checkpointing` or `drop_path` of
    a backbone that has none, and `cells`, which are for models by `cells.create_encoder`.
    """
    refuse_cells(settings)
    if settings.pretrained == "imagenet":
        made = _from_hub(settings, channels)
    elif settings.pretrained is not None:
        made = _from_file(settings, channels, Path(settings.pretrained))
    else:
        made = _untrained(settings, channels)
    if settings.checkpointing:
        _checkpoint(made, settings.backbone)
    return made


def refuse_cells(settings: Model) -> None:
    """Raises UserError where the config asks cells of a model that does not look at single images."""
    if settings.cells:
        raise UserError(f"model.cells=true: {settings.name} has no use for them; set it to false")


def _checkpoint(backbone: Any, name: str) -> None:
    try:
        backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"model.checkpointing=true: {name} cannot compute its blocks again; set it to false, or take a timm "
            "backbone such as resnet18 or convnext_nano"
        ) from error


def feature_count(backbone: nn.Module) -> int:
    """The length of a backbone's feature vector."""
    # Some timm models project their features once more after pooling; they say so by head_hidden_size.
    count: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return count


def require_size(backbone: nn.Module, name: str, channels: int, size_px: int) -> None:
    """Raises UserError where the backbone does not take images of this size, with the usual sizes that it takes."""
    if usable_sizes(backbone, channels, (size_px,)):
        return
    usable = ", ".join(map(str, usable_sizes(backbone, channels, SIZES_PX))) or "none"
    raise UserError(f"data.image_size_px={size_px}: {name} does not take images of this size; of the usual: {usable}")


def usable_size(settings: Model, channels: int, size_px: int) -> int:
    """`size_px` if the backbone takes images of this size, else the least usual one above, else the least of all."""
    with torch.device("meta"):  # shapes alone tell, and weights cost seconds
        backbone = create_backbone(replace(settings, pretrained=None), channels)
    above = [size for size in SIZES_PX if size > size_px]
    for size in (size_px, *above, *SIZES_PX):
        if usable_sizes(backbone, channels, (size,)):
            return size
    raise UserError(f"model.backbone={settings.backbone}: takes images of none of the usual sizes")


@torch.inference_mode()
def usable_sizes(backbone: nn.Module, channels: int, sizes_px: Iterable[int]) -> list[int]:
    """Those of the image sizes that the backbone takes, found by trying."""
    was_training = backbone.training
    backbone.eval()  # an image must leave no trace in the batch statistics
    try:
        return [size for size in sizes_px if _takes(backbone, channels, size)]
    finally:
        backbone.train(was_training)


def _takes(backbone: nn.Module, channels: int, size_px: int) -> bool:
    try:
        backbone(torch.zeros(1, channels, size_px, size_px, device=next(backbone.parameters()).device))
    except (RuntimeError, AssertionError, ValueError, IndexError):
        return False
    return True


def _untrained(settings: Model, channels: int) -> nn.Module:
    name = settings.backbone
    if timm.is_model(name):
        return _timm_encoder(settings, channels, pretrained=False)
    if torchvision_encoders.is_model(name):
        if settings.drop_path:
            raise _no_paths(settings)
        return torchvision_encoders.create_encoder(name, channels)
    known = [*timm.list_models(), *torchvision_encoders.list_models()]
    raise UserError(f"model.backbone={name}: neither timm nor torchvision has such a model; {nearest(name, known)}")


def _timm_encoder(settings: Model, channels: int, **options: Any) -> nn.Module:
    name = settings.backbone
    family = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    options |= {"in_chans": channels, "num_classes": 0, **ANY_SIZE.get(family, {})}
    if not settings.drop_path:
        return timm.create_model(name, **options)
    try:
        made = timm.create_model(name, **options, drop_path_rate=settings.drop_path)
    except TypeError as error:
        raise _no_paths(settings) from error
    if not any(_drops(part) for part in made.modules()):
        raise _no_paths(settings)
    return made


def _drops(block: nn.Module) -> bool:
    """Whether a block drops its path: some families take the rate and have no shortcut to go instead."""
    has_shortcut = getattr(block, "has_skip", True)
    return has_shortcut and any(isinstance(part, DropPath) and part.drop_prob for part in block.children())


def _no_paths(settings: Model) -> UserError:
    return UserError(
        f"model.drop_path={settings.drop_path}: {settings.backbone} has no paths to drop; set it to 0, or take a timm "
        "backbone such as resnet18 or convnext_nano"
    )


def _from_hub(settings: Model, channels: int) -> nn.Module:
    name = settings.backbone
    if not timm.is_model(name):
        _untrained(settings, channels)  # an unknown name is the greater mistake
        raise UserError(f"model.pretrained=imagenet: only timm's weights can be fetched; use null or a file for {name}")
    if not timm.is_model_pretrained(name):
        raise UserError(f"model.pretrained=imagenet: timm has no weights for {name}; use null or a file")
    try:
        # Without this look, an unreachable hub is retried for minutes.
        if not os.environ.get("HF_HUB_OFFLINE"):
            socket.create_connection(HUB, timeout=5).close()
        return _timm_encoder(settings, channels, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.pretrained=imagenet: the weights of {name} cannot be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); without a network set model.pretrained=null or to a local .pth or "
            ".safetensors file, or HF_HUB_OFFLINE=1 where the hub's cache holds them"
        ) from error


def _from_file(settings: Model, channels: int, file: Path) -> nn.Module:
    name, model = settings.backbone, _untrained(settings, channels)
    stem = torchvision_encoders.first_convolution(model)
    state = read_encoder(file, stem, model.get_submodule(stem))
    expected = model.state_dict()
    # timm passes over what a file lacks; half a pre-trained encoder is worse than an error.
    if missing := sorted(key for key in expected.keys() - state.keys() if not key.endswith("num_batches_tracked")):
        raise UserError(f"model.pretrained={file}: does not fit {name}; {missing[0]} is not in it")
    try:
        weight = state.get(f"{stem}.weight")
        fits = weight is not None and weight.shape[1] == channels  # so does a run of ours, whatever its channels
        if timm.is_model(name) and not (fits and channels != 3):
            overlay = {"state_dict": state}
            return _timm_encoder(settings, channels, pretrained=True, pretrained_cfg_overlay=overlay)
        if weight is not None and not fits:
            state[f"{stem}.weight"] = adapt_input_conv(channels, weight)
        model.load_state_dict({key: value for key, value in state.items() if key in expected})
    except (RuntimeError, KeyError, ValueError, NotImplementedError) as error:
        raise UserError(f"model.pretrained={file}: does not fit {name} ({str(error).splitlines()[0]})") from error
    return model
