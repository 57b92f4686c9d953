"""The networks are what their tables say: parameters, shapes and receptive fields."""

import copy
import inspect
import re

import pytest
import torch
from matplotlib import colormaps
from torch import nn
from torch.fx.experimental.optimization import fuse

from utils import ROOT, CourseError, models
from utils.layers import Oranges, PrincipalAxisView, Residual
from utils.runs import pretrained
from utils.training import devices

REFERENCE = {"base": 7034, "bn_augmentation": 7786, "under_20k": 19_602, "mnist_medium": 7632, "mnist_small": 5616}
REFERENCE |= {"mnist_ultrasmall": 4464, "small_cnn": 785_210, "medium_cnn": 1_571_030, "voxel_reference": 4_279_082}


def test_networks_have_the_parameters_of_the_reference_and_those_that_their_docstrings_name():
    named = {name: re.search(r"in ([\d,]+) parameters", inspect.getdoc(found)) for name, found in models.MODELS.items()}
    numbers = {name: int(found[1].replace(",", "")) for name, found in named.items() if found} | REFERENCE
    assert numbers == {name: models.count_parameters(models.build(name)) for name in numbers}
    assert models.count_parameters(models.build("voxel_best")) <= 500_000


def test_receptive_field_is_the_longer_side_of_what_the_gradient_of_one_place_reaches():
    """Also through branches, of which the widest counts, a layer that is used twice, and a kernel of one row."""
    wide, again = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1)
    branches = Residual(wide, shortcut=nn.Conv2d(1, 4, 3, padding=1))
    network = nn.Sequential(branches, nn.AvgPool2d(2), again, again, nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, (4, 1)))
    images = torch.rand(1, 1, 60, 60, requires_grad=True)
    network(images)[0, 0, 13, 13].backward()
    sides = [len(images.grad[0, 0].abs().sum(axis).nonzero()) for axis in (1, 0)]
    # 5, then 1, then twice 2 · 2 more, then 2 · 2 more to each side, or 3 · 2 up and down
    assert (models.receptive_field(network), sides) == (20, [20, 18])
    assert models.receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3, dilation=(1, 2)))) == 5


def comments(name: str) -> list[tuple[str, str]]:
    """The shapes and fields at the ends of a network's lines, or of the network that it calls."""
    source = inspect.getsource(models.MODELS[name])
    others = [other for other in models.MODELS if re.search(rf"\b{other}\(", source) and other != name]
    return re.findall(r"# ([\d×]+)  RF (\d+)", source) or comments(others[0])


@pytest.mark.parametrize("name", models.MODELS)
def test_comments_at_line_ends_are_true_and_the_network_is_plain_pytorch(name):
    network, found = models.build(name).eval(), []
    features = torch.rand(2, *models.input_shape(network))
    for number, child in enumerate(network, 1):
        features = child(features)
        if any(isinstance(layer, models.SPATIAL) for layer in child.modules()):
            shape = "×".join(map(str, features.shape[1:]))
            found.append((shape, str(models.receptive_field(network[:number]))))
    assert features.shape == (2, 10) and comments(name) == found
    kinds = {".".join(type(layer).__module__.split(".")[:2]) for layer in network.modules()}
    assert kinds <= {"torch.nn", "utils.layers"}


def test_folded_parameters_are_those_of_a_network_that_was_folded():
    """A batch norm in front of a convolution or behind a shared one can't be."""
    for name in ("bn_augmentation", "under_20k"):
        network = models.build(name).eval()
        folded = sum(t.numel() for name, t in fuse(network).state_dict().items() if "running" not in name and t.ndim)
        assert models.count_folded(network) == folded < models.count_parameters(network)
    shared = nn.Conv2d(4, 4, 3, padding=1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4))
    behind = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    for model in (twice, behind):
        assert models.count_folded(model) == models.count_parameters(model)
    assert models.count_parameters(twice) == 4 * 4 * 9 + 4 + 4 * 4  # the shared weights count once


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bn_augmentatoin", "'bn_augmentatoin': expected bn_augmentation"),
        ("separable(24)", r"separable takes stem=…, width=…, repeats=…"),
        ("separable(width=open('x'))", "expected a network's name, with its arguments by name"),
        ("separable(width=1000)", "width = 1000, expected 1 to 192"),
    ],
)
def test_a_network_that_is_not_there_is_one_line(model, message):
    with pytest.raises(CourseError, match=message):
        models.build(model)


def test_arguments_reach_the_network_and_their_check_changes_no_weight():
    wide = models.build("unpadded(width=4,step=2,depth=5,kernel=5)")
    assert (wide[-1].in_features, models.receptive_field(wide)) == (12 * 8 * 8, 21)
    assert models.build("separable( width = 16 )", dropout=0.3)[-2].p == 0.3
    torch.manual_seed(0)
    built = models.build("separable(width=32, position_weighted=True)", dropout=0.1)
    torch.manual_seed(0)
    expected = models.separable(0.1, width=32, position_weighted=True)
    assert built.training and all(map(torch.equal, built.state_dict().values(), expected.state_dict().values()))


def test_face_on_shows_a_turned_body_as_it_was():
    grids, face_on = torch.zeros(1, 1, 16, 16, 16), PrincipalAxisView()
    assert torch.isfinite(face_on(grids)).all()
    grids[:, :, 3:13, 4:12, 7:9] = 1  # z, y, x: a box that is flat along x, with one corner cut off
    grids[:, :, 10:13, 4:7] = 0
    upright = face_on(grids)
    assert upright.shape == (1, 4, 24, 24) and upright.min() >= 0 and upright.max() <= 1
    # z runs up: the cut corner is in the upper half
    assert upright[0].mean(0)[14:].sum() > upright[0].mean(0)[:10].sum()
    # y → x, x → −y: seen along its thinnest direction it is the same picture again, upside up, but from one side or the
    # other
    turned = face_on(grids.transpose(3, 4).flip(3))
    both = torch.stack([turned, turned.flip(1, 3)])  # from behind: slices in the other order, left and right exchanged
    assert (both - upright).abs().flatten(1).mean(1).min() < 0.01
    assert torch.allclose(face_on(0.5 * grids), 0.5**0.5 * upright, atol=1e-5)
    about_x = face_on(grids.transpose(2, 3).flip(2))  # in its own plane it is left as it lies
    assert (about_x - upright).abs().mean() > 0.02 and (about_x - upright.rot90(3, (2, 3))).abs().mean() < 0.01


def test_rounding_moves_no_answer_to_a_body(mnist3d):
    """float64, one thread and grids scaled by 1 ± 1e-6 against float32 on all threads.

    0.01 is some fifty times what rounding was seen to do, and a twentieth of what a mirrored view does.
    """
    model, grids = pretrained.load_model(ROOT / "saved_dict" / "voxel_best.pth")[0], mnist3d.test.images[:100]
    threads = torch.get_num_threads()
    with torch.inference_mode():
        logits = model(grids)
        others = [model(grids * (1 + 1e-6)), model(grids * (1 - 1e-6))]
        torch.set_num_threads(1)
        others.append(model(grids))
        torch.set_num_threads(threads)
        others.append(model.double()(grids.double()))
        model[0].places.neg_()  # what a mirrored view would do
        mirrored = model(grids.double())
    assert all((other - logits).abs().max() < 0.01 for other in others)
    assert (mirrored - logits).abs().amax(1).median() > 0.2


def test_a_rotated_solid_is_read_in_four_turns_and_an_upright_one_as_it_is(mnist3d):
    """The same weights on views that are rolled one by one; 1e-4 allows for sampling at rounded places."""
    state = pretrained.load_model(ROOT / "saved_dict" / "voxel_best.pth")[0].state_dict()
    plain, turned = (models.build(name).eval() for name in ("voxel_best", "voxel_best(turned=True)"))
    plain.load_state_dict(state)
    turned.load_state_dict(state)
    grids = mnist3d.test.images[:200]
    with torch.inference_mode():
        found = turned(grids).exp()
        views = [plain[1:](PrincipalAxisView(roll)(grids)).softmax(1) for roll in (0, 90, 180, 270)]
    assert torch.allclose(found[::2], views[0][::2], atol=1e-4)
    assert torch.allclose(found[1::2], torch.stack(views).mean(0)[1::2], atol=1e-4)
    turned.train()
    assert turned(grids[:8]).shape == (8, 10)


@pytest.mark.parametrize(("channels", "layout"), [(8, torch.channels_last), (16, torch.contiguous_format)])
def test_batch_norm_is_pytorch_s_own(channels, layout):
    """The same output, gradients and running statistics as nn.BatchNorm2d (rtol, atol: float32 sums over 6,272 values
    against float64)."""
    torch.manual_seed(0)
    features = (torch.randn(32, channels, 14, 14) * 3 + 1).to(memory_format=layout)
    upstream = torch.randn_like(features)
    found = []
    for norm, dtype in ((devices.FewChannels(channels), torch.float32), (nn.BatchNorm2d(channels), torch.float64)):
        norm = norm.to(dtype)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, channels))
        leaf = features.detach().to(dtype, copy=True).requires_grad_()
        output = norm(leaf)
        torch.relu_(output).backward(upstream.to(dtype))  # in place, as the networks do it
        found.append([output, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()])
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=1e-4, atol=1e-4)
    assert found[0][0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("how", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}], ids=str)
def test_a_reader_s_own_kind_of_batch_norm_trains(how):
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, **how))
    prepared, images = devices.prepare(copy.deepcopy(network), torch.device("cpu")), torch.rand(8, 1, 28, 28)
    torch.testing.assert_close(prepared(images), network(images), rtol=1e-4, atol=1e-4)  # sums in another order


def test_oranges_are_matplotlib_s():
    grids = torch.rand(2, 1, 4, 4, 4)
    grids[0, 0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    expected = torch.from_numpy(colormaps["Oranges"](grids[:, 0].numpy())[..., :3]).float()
    torch.testing.assert_close(Oranges()(grids).permute(0, 2, 3, 4, 1), expected, rtol=0, atol=1e-6)
