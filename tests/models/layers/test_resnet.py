"""The ResNet against transformers', its strides and dilations, and its start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from ocl_bench.core.errors import UsageError
from ocl_bench.models.checkpoints.export import resnet50_names
from ocl_bench.models.layers.resnet import ResNet, resnet

BLOCKS, WIDTHS = (2, 1, 2, 2), (8, 12, 16, 20)


def randomised(network: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights of a trained network, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, tensor in module.state_dict().items():
                if name in ("weight", "running_var"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif name in ("bias", "running_mean"):
                    tensor.normal_(0, 0.1, generator=generator)
    return network.eval()


def their_name(name: str, bottleneck: bool) -> str:
    """Where transformers keeps a tensor of torchvision's ResNet."""
    parts = {"conv": "convolution", "bn": "normalization"}
    first, _, rest = name.partition(".")
    if not first.startswith("layer"):
        return f"embedder.embedder.{parts[first[:-1]]}.{rest}"
    block, kind, field = rest.split(".", 2)
    place = f"encoder.stages.{int(first[-1]) - 1}.layers.{block}"
    if kind == "downsample":
        number, field = field.split(".")
        return f"{place}.shortcut.{('convolution', 'normalization')[int(number)]}.{field}"
    return f"{place}.layer.{int(kind[-1]) - 1}.{parts[kind[:-1]]}.{field}"


@pytest.mark.parametrize("bottleneck", [True, False])
def test_features_are_those_of_another_implementation(bottleneck: bool) -> None:
    torch.manual_seed(0)
    ours = randomised(ResNet(BLOCKS, WIDTHS, bottleneck))
    sizes = [4 * width if bottleneck else width for width in WIDTHS]
    kind = "bottleneck" if bottleneck else "basic"
    config = ResNetConfig(embedding_size=8, hidden_sizes=sizes, depths=list(BLOCKS), layer_type=kind)
    theirs = ResNetModel(config).eval()
    theirs.load_state_dict({their_name(k, bottleneck): v for k, v in ours.state_dict().items()}, strict=True)
    image = torch.randn(2, 3, 70, 64)
    with torch.no_grad():
        expected, features = theirs(image).last_hidden_state, ours(image)
    assert features.shape == (2, ours.channels, 3, 2) and features.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_resnet50_has_torchvisions_tensors() -> None:
    with torch.device("meta"):
        network = resnet("resnet50")
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == resnet50_names()
    assert list(network.state_dict())[6:9] == ["layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias"]
    assert sum(p.numel() for p in network.parameters()) == 23_508_032
    assert (network.channels, network.stride) == (2048, 32)


@pytest.mark.parametrize(("arch", "parameters"), [("resnet18", 11_176_512), ("resnet34", 21_284_672)])
def test_basic_resnets(arch: str, parameters: int) -> None:
    """Counts of torchvision's networks, less 513,000 of the classifier."""
    with torch.device("meta"):
        network = resnet(arch)
    assert sum(p.numel() for p in network.parameters()) == parameters and network.channels == 512


def test_dilated_features_contain_the_strided_ones() -> None:
    """A contracted dilation only adds positions between: every second one is that of stride 32, exactly."""
    torch.manual_seed(0)
    strided = randomised(ResNet(BLOCKS, WIDTHS)).double()
    dilated = ResNet(BLOCKS, WIDTHS, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)).double().eval()
    dilated.load_state_dict(strided.state_dict(), strict=True)
    image = torch.randn(1, 3, 128, 192, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = strided(image), dilated(image)
    assert coarse.shape[2:] == (4, 6) and fine.shape[2:] == (8, 12) and dilated.stride == 16
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-9, atol=1e-11)
    with torch.device("meta"):
        paper = resnet("resnet50", output_stride=16)
    spread = [layer.dilation[0] for name, layer in paper.named_modules() if name.endswith("conv2")]
    assert spread == [1] * 13 + [1, 2, 2] and paper.stride == 16


def test_small_stem() -> None:
    network = ResNet((1, 1), (8, 16), False, "small", (2, 2), (1, 1)).eval()
    assert network.stride == 4 and network(torch.randn(1, 3, 30, 33)).shape == (1, 16, 8, 9)


def test_start() -> None:
    """Kaiming by outputs; the last norm of a block is 0, so that features are those of the shortcuts alone."""
    torch.manual_seed(0)
    network = resnet("resnet18")
    last = [norm for name, norm in network.named_parameters() if name.endswith("bn2.weight")]
    assert len(last) == 8 and not any(norm.any() for norm in last)
    assert all((norm == 1).all() for name, norm in network.named_parameters() if name.endswith("bn1.weight"))
    convolution: Tensor = network.get_parameter("layer3.0.conv1.weight")  # 3x3, 128 -> 256
    assert convolution.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    with torch.device("meta"):
        bottlenecks = [name for name, _ in resnet("resnet50").named_parameters() if name.endswith("bn3.weight")]
    assert len(bottlenecks) == 16
    deep = ResNet(BLOCKS, WIDTHS)
    assert not any(norm.any() for name, norm in deep.named_parameters() if name.endswith("bn3.weight"))
    assert all((norm == 1).all() for name, norm in deep.named_parameters() if name.endswith("bn2.weight"))


def test_stages_of_unequal_numbers() -> None:
    with pytest.raises(UsageError, match=r"lists of one length.* 2, 4, 4 and 4"):
        ResNet(blocks=(1, 1))


@pytest.mark.parametrize("width", [8, 16])
def test_narrow_networks_can_be_trained(width: int) -> None:
    """torch's strided 1x1 convolutions of narrow maps crash on the CPU in the backward pass when channels are last."""
    network = ResNet((1, 1), (width, width), False, "small", (2, 2), (1, 1)).train()
    network(torch.randn(4, 3, 96, 96)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
