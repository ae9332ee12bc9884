"""Batch norms folded into the linear maps beside them: exact in eval mode, computed in float64, rounded once."""

from torch import Tensor, nn


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The scale and shift (C,), float64, that a batch norm applies in eval mode: norm(x) = scale * x + shift."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            f"got {type(norm).__name__}, expected a BatchNorm2d with running statistics: fold it once only"
        )
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def fold_after(linear: nn.Conv2d | nn.Linear, norm: nn.Module, repeat: int = 1) -> None:
    """Fold `norm` into the layer it follows, in place: linear'(x) = norm(linear(x)).

    Zero padding before the layer stays exact. With `repeat`, each channel of the norm covers that many
    consecutive output channels and scales them only: a kernel generator's K*K taps of one channel.
    """
    scale, shift = affine(norm)
    if repeat > 1:
        scale, shift = scale.repeat_interleave(repeat), shift.new_zeros(len(shift) * repeat)
    bias = 0.0 if linear.bias is None else linear.bias.double()
    replace(linear, linear.weight.double() * scale.view(-1, *[1] * (linear.weight.dim() - 1)), bias * scale + shift)


def fold_before(norm: nn.Module, linear: nn.Linear) -> None:
    """Fold `norm` into the Linear it precedes, in place: linear'(x) = linear(norm(x)). Nothing may pad between."""
    scale, shift = affine(norm)
    weight = linear.weight.double()
    bias = 0.0 if linear.bias is None else linear.bias.double()
    replace(linear, weight * scale, weight @ shift + bias)


def replace(linear: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer new weights, in the dtype and memory format that it has."""
    old = linear.weight
    linear.weight = nn.Parameter(weight.to(old.dtype), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.to(old.dtype), requires_grad=False)


def as_linear(conv: nn.Module) -> nn.Linear:
    """A 1x1 convolution as the Linear over channels that it is: the same weights, for maps (B, H, W, C)."""
    if isinstance(conv, nn.Linear):
        return conv
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (1, 1) or conv.groups != 1:
        raise ValueError(f"got {conv}, expected a dense 1x1 convolution")
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear


def permute_outputs(linear: nn.Conv2d | nn.Linear, order: Tensor) -> None:
    """Output channel i becomes the former channel order[i]."""
    replace(linear, linear.weight[order], None if linear.bias is None else linear.bias[order])


def permute_inputs(linear: nn.Linear, order: Tensor) -> None:
    """Input channel i is read as the former channel order[i]."""
    replace(linear, linear.weight[:, order], None)
