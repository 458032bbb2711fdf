"""Names of the operations that leave units alone, keep them apart, or only look."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATIONS = _words(
    "ReLU ReLU6 LeakyReLU RReLU ELU CELU SELU GELU SiLU Mish Tanh Sigmoid Softplus Softsign Hardtanh "
    "Hardsigmoid Hardswish Hardshrink Softshrink Tanhshrink Threshold LogSigmoid Dropout Dropout1d Dropout2d "
    "Dropout3d AlphaDropout FeatureAlphaDropout Identity PReLU "
)
POOLS = {f"{kind}Pool{n}d": n for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg", "LP") for n in (1, 2, 3)}
POOLS |= {
    f"{kind}Pad{n}d": n for kind in ("Zero", "Reflection", "Replication", "Constant", "Circular") for n in (1, 2, 3)
}
FUNCTION_POOLS = {
    f"{kind}_pool{n}d": n for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)
}
ELEMENTWISE = _words(
    "relu relu6 leaky_relu rrelu elu celu selu gelu silu mish tanh sigmoid softplus softsign hardtanh "
    "hardsigmoid hardswish hardshrink softshrink tanhshrink threshold logsigmoid dropout dropout1d dropout2d "
    "dropout3d alpha_dropout feature_alpha_dropout clone contiguous detach float double half bfloat16 to type "
    "type_as abs neg exp log log1p expm1 sqrt rsqrt square pow sin cos erf clamp clip clamp_min clamp_max sign "
    "requires_grad cpu cuda nan_to_num identity data "
)
POSITIVE = _words("relu ReLU relu6 ReLU6 sigmoid Sigmoid hardsigmoid Hardsigmoid softplus Softplus abs exp square")
"""Steps whose result is at least 0, whatever goes in."""

KEEPS_SIGN = _words("Flatten dropout Dropout dropout1d dropout2d dropout3d Dropout1d Dropout2d Dropout3d tanh Tanh") | {
    name for name in (*POOLS, *FUNCTION_POOLS) if not name.startswith(("Constant", "LP", "lp"))
}
"""Steps whose result is at least 0 if that is so for what goes in."""

QUIET = _words("clone contiguous detach float double to type identity Identity requires_grad data")
LOOKS = _words(
    "get size grad is_leaf layout dim ndim numel shape is_floating_point item len eq ne lt gt le ge isnan "
    "isinf all any bool is_complex stride device dtype data_ptr backward register_hook retain_grad repr str format "
    "assert getattr "
)
