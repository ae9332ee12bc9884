"""What people bring, as a table: each kind of Python model with the values that are known of it beforehand.

MACs and parameters are closed forms, written out beside each kind; `test_people_values.py` holds them against plain
PyTorch and hooks. A status is what the command line must say in a dtype, or several of which one will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DTYPES = ("float32", "float16", "bfloat16")
ANY = ("ok", "inaccurate", "unsupported")  # where rounding decides discretely: it ends as one of these, and says why
REFUSED = ("unsupported",)
EITHER = ("ok", "unsupported")


@dataclass(frozen=True)
class Kind:
    """One model as a person would name it, with what is right for it."""

    model: str  # "people_images:tutorial"
    item: int  # of the list of kinds: 1 layouts, 2 outputs, 3 inputs, 4 weights, 5 forwards, 6 random, 7 batch, 8 forms
    params: int | None  # None: nobody can say
    macs: int | None  # of the whole batch
    batch: int = 2  # 0: a file's own, or a function's that has none
    side: int = 32
    options: tuple[str, ...] = ()  # of the command line besides batch and resolution
    status: tuple[str, ...] = ("ok",)
    by_dtype: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # where a dtype's differs
    at_least: bool = False  # part of the work is no product that has a formula: an FFT, a sparse product
    random: bool = False
    says: str = ""  # a pattern that the one line of an error has to hold
    shown: str = ""  # a pattern that its row in the table of `time` has to hold

    def statuses(self, dtype: str) -> tuple[str, ...]:
        return self.by_dtype.get(dtype, self.status)

    @property
    def name(self) -> str:
        return self.model.split(":", 1)[1] + ("" if not self.options else " " + " ".join(self.options))


def narrow(*statuses: str) -> dict[str, tuple[str, ...]]:
    """Statuses of the narrow dtypes alone."""
    return dict.fromkeys(("float16", "bfloat16"), statuses)


PIXELS = 32 * 32
CONV = PIXELS * 8 * 27  # Conv2d(3, 8, 3, padding=1) of an image of 32 pixels a side
CONV4 = PIXELS * 4 * 27
FOURTH = 64 * 8 * 48  # Conv2d(3, 8, 4, stride=4)
EIGHTH = 16 * 8 * 192  # Conv2d(3, 8, 8, stride=8), 16 tokens
SMALL = CONV + 8 * 4  # with the head of people_forwards and people_forms


def layer(tokens: int, width: int, hidden: int) -> int:
    """MACs of an encoder layer: four projections, two products of attention, two of the MLP."""
    return 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * hidden


IMAGES = [
    Kind("people_images:tutorial", 1, 18_234, 66_600, batch=1),
    Kind("people_images:tokens_by_view", 1, 392 + 54, 2 * (FOURTH + 64 * 8 * 6)),
    Kind("people_images:unshuffle_by_view", 1, 104, 2 * 256 * 12 * 8),
    Kind("people_images:channel_shuffle", 1, 224 + 152, 2 * (CONV + PIXELS * 8 * 2 * 9)),
    Kind("people_images:strides_assumed", 1, 16, 2 * 256 * 3 * 4),
    Kind(
        "people_images:unet", 1, 224 + 1168 + 520 + 34,
        2 * (CONV + 256 * 16 * 8 * 9 + 256 * 16 * 8 * 4 + PIXELS * 16 * 2),
    ),
    Kind("people_images:upsampling", 1, 965, 2 * 16 * 5 * 192),
    Kind("people_images:dynamic_convolution", 5, 448 + 68 + 9216, 5_621_888),
    Kind("people_images:global_filter", 5, 392 + 8 * 8 * 5, 2 * FOURTH, at_least=True, by_dtype=narrow(*REFUSED)),
    Kind("people_images:global_filter_of_pairs", 5, 392 + 2 * 320, 2 * FOURTH, at_least=True,
         by_dtype=narrow(*REFUSED)),
    Kind("people_images:unfolding", 5, 162, 2 * PIXELS * 6 * 27),
    Kind("people_images:spatial_transformer", 5, 24 + 112, 2 * (18 + CONV4), at_least=True),
    Kind("people_images:volume", 3, 112 + 10, 2 * (4 * PIXELS * 4 * 27 + 8)),
]  # fmt: skip

BACKBONE = (3 * 16 * 16 + 16) + (16 * 32 * 4 + 32)
OUTPUTS = [
    *(
        Kind(f"people_outputs:{name}", 2, BACKBONE, 327_680, batch=1, side=64)
        for name in ("dictionary", "pair", "listed", "named_tuple", "data_class", "model_output", "nested")
    ),
    Kind("people_outputs:several_types", 2, BACKBONE, 2 * 327_680, side=64),
    Kind("people_outputs:indices", 2, BACKBONE, 2 * 327_680, side=64, by_dtype=narrow(*ANY)),
    Kind("people_outputs:whole_batch", 2, BACKBONE, 3 * 327_680, batch=3, side=64),
    Kind("people_outputs:attention_weights", 2, 3088 + 816 + 272, 2 * (16 * 192 * 16 + 4 * 16**3 + 2 * 16**3)),
    Kind("people_outputs:detector", 2, 965, 2 * 16 * 5 * 192, by_dtype=narrow(*ANY)),
]

DIGIT = 28 * 28 * 8 * 9 + 80  # MACs of one digit
TEXT = 32_000 + 8544  # a table of 1,000 and one layer of 32, 64
TOWERS = 2 * (4 * 32 * 768 + layer(20, 32, 64)) + 2 * 2 * 32
WORDS = "pixel_values:2x3x32x32,input_ids:2x20:int64"
CHANNELS, MORE = r"(?=.*1 channel)?.*--input", r"input_ids.*--input|example_inputs"
INPUTS = [
    Kind("people_inputs:net", 3, 170, 2 * DIGIT, side=28, options=("--input", "x:2x1x28x28")),
    Kind("people_inputs:net", 3, None, None, side=28, status=REFUSED, says=CHANNELS),
    Kind("people_inputs:grey", 3, 170, 2 * DIGIT, side=28, options=("--input", "x:2x1x28x28")),
    Kind("people_inputs:grey", 3, None, None, side=28, status=REFUSED, says=CHANNELS),
    Kind("people_inputs:multispectral", 3, 1034, 2 * (784 * 8 * 117 + 80), side=28,
         options=("--input", "x:2x13x28x28")),
    Kind("people_inputs:mixer", 3, 16 + 72, 2 * 64 * 64, side=8, options=("--channels", "8")),
    Kind("people_inputs:text", 3, TEXT, 2 * layer(77, 32, 64), options=("--input", "ids:2x77:int64")),
    Kind("people_inputs:text", 3, None, None, status=REFUSED, says=r"--input|example_inputs"),
    Kind("people_inputs:text_with_examples", 3, TEXT, 2 * layer(77, 32, 64)),
    Kind("people_inputs:two_towers", 3, 24_608 + TEXT + 1, TOWERS, options=("--input", WORDS)),
    Kind("people_inputs:two_towers", 3, None, None, status=REFUSED, says=MORE),
    Kind("people_inputs:with_inputs", 3, 24_608 + TEXT + 1, TOWERS),
    Kind("people_inputs:with_a_tuple", 3, 24_608 + TEXT + 1, TOWERS),
    Kind("people_inputs:with_one_tensor", 3, 170, 2 * DIGIT, side=28),
    Kind("people_inputs:keywords", 3, 112, 2 * CONV4),
    Kind("people_inputs:optional", 3, 112, 2 * CONV4),
    Kind("people_inputs:camera", 3, 112, 2 * CONV4),
    Kind("people_inputs:audio", 3, 136 + 45, 2 * (199 * 8 * 16 + 40)),
    Kind("people_inputs:points", 3, 128 + 102, 2 * (100 * 7 * 16 + 96)),
    Kind("people_inputs:nested_inputs", 3, 112, 2 * CONV4),
]  # fmt: skip

SMALL_ENCODER = 2 * (16 * 192 * 32 + 2 * layer(16, 32, 64) + 320)
SEQUENCES = [
    Kind("people_sequences:encoder", 4, 21_592_714, 4_573_646_592, batch=1, side=224),
    Kind("people_sequences:small_encoder", 4, 6176 + 2 * 8544 + 330, SMALL_ENCODER),
    Kind("people_sequences:encoder_with_norms_last", 4, 6176 + 2 * 8544 + 330, SMALL_ENCODER),
    Kind("people_sequences:padded", 4, 800 + 2 * 2224, 2 * 2 * layer(20, 16, 32)),
    Kind("people_sequences:decoder", 5, 9536, 2 * 24 * (32 * 96 + 2 * 24 * 32 + 32 * 32 + 3200)),
    Kind("people_sequences:cross_attention", 4, 4632 + 80 + 1344,
         2 * (16 * 24 * 192 + 2 * 5 * 256 + 2 * 16 * 24 * 16 + 2 * 5 * 16 * 16)),
    Kind("people_sequences:encoder_decoder", 4, 2224 + 3344 + 64,
         2 * (layer(12, 16, 32) + layer(9, 16, 32) + 2 * 9 * 256 + 2 * 12 * 256 + 2 * 9 * 12 * 16)),
    Kind("people_sequences:hard_attention", 4, 3088 + 816, 2 * (16 * 16 * 192 + 16 * 16 * 48 + 2 * 16**3)),
    Kind("people_sequences:lstm", 5, 1544 + 2 * 1056 + 2 * 1824 + 175,
         2 * (EIGHTH + 16 * 2 * 48 * (8 + 12 + 24 + 12) + 168)),
    Kind("people_sequences:gru", 5, 1544 + 792 + 91, 2 * (EIGHTH + 16 * 36 * 20 + 84)),
    Kind("people_sequences:projected_lstm", 5, 1544 + 780 + 42, 2 * (EIGHTH + 16 * (48 * 13 + 60) + 35)),
    Kind("people_sequences:cells", 5, 1544 + 288, 2 * (EIGHTH + 16 * 18 * 14)),
    Kind("people_sequences:scan", 5, 1544 + 152, 2 * (EIGHTH + 2 * 16 * 64)),
    Kind("people_sequences:experts", 5, 1544 + 36 + 288, 2 * (EIGHTH + 16 * 32 + 16 * 64), by_dtype=narrow(*ANY)),
    Kind("people_sequences:bags", 3, 240 + 27, 2 * 24),
]  # fmt: skip

TWO_LAYERS = CONV + PIXELS * 32  # Conv2d(3, 8, 3), Conv2d(8, 4, 1)
WEIGHTS = [
    Kind("people_weights:plain_tensors", 5, 112, 2 * CONV4, by_dtype=narrow(*EITHER)),
    Kind("people_weights:cached_table", 5, 1544 + 72, 2 * (EIGHTH + 16 * 64)),
    Kind("people_weights:positions", 5, 1544 + 512, 2 * EIGHTH),
    Kind("people_weights:lazy", 5, 18_234, 66_600, batch=1),
    Kind("people_weights:train_returns_nothing", 5, 112 + 8, 2 * CONV4),
    Kind("people_weights:tied", 5, 392 + 72 + 72 + 8, 2 * (FOURTH + 3 * 64 * 64 + 2 * 64)),
    Kind("people_weights:checkpoint", 4, 27, 2 * PIXELS * 27),
    Kind("people_weights:checkpoint_in_half", 4, 224 + 292, 2 * (CONV + PIXELS * 4 * 72)),
    Kind("people_weights:checkpoint_in_double", 4, 224 + 292, 2 * (CONV + PIXELS * 4 * 72)),
    Kind("people_weights:zeros", 4, 392 + 584 + 8 + 45, 2 * (FOURTH + 64 * 8 * 72 + 40)),
    Kind("people_weights:weight_norm", 5, 232 + 36, 2 * TWO_LAYERS + 36),  # the largest singular value: u'Wv
    Kind("people_weights:old_weight_norm", 5, 232 + 36, 2 * TWO_LAYERS + 36),
    Kind("people_weights:orthogonal", 5, 1544 + 72, 2 * (EIGHTH + 64) + 8**3, at_least=True, by_dtype=narrow(*EITHER)),
    Kind("people_weights:pruned", 5, 224 + 36, 2 * TWO_LAYERS),
    Kind("people_weights:int8_weights", 5, 6, 2 * 64 * 6 * 48),
    Kind("people_weights:sparse_graph", 5, 1544 + 36, 2 * (EIGHTH + 16 * 32), at_least=True, by_dtype=narrow(*EITHER)),
    Kind("people_weights:parameter_list", 5, 24 + 48 + 6 + 9, 2 * 72),
]

FORWARDS = [
    Kind("people_forwards:float32_norm", 5, 260 + 8, 2 * SMALL),
    *(
        Kind(f"people_forwards:{name}", 5, 260, 2 * SMALL)
        for name in ("float32_layer", "stays_float32", "autocast", "not_in_double", "item", "branch", "from_numpy")
    ),
    Kind("people_forwards:checkpointed", 5, 260, 2 * SMALL),
    Kind("people_forwards:own_function", 5, 260, 2 * SMALL),
    Kind("people_forwards:boolean_mask", 5, 260, 2 * CONV, by_dtype=narrow(*ANY)),
    Kind("people_forwards:values", 5, 260, 2 * CONV + 8 * 4, by_dtype=narrow(*ANY)),
    Kind("people_forwards:guided", 5, 260, 2 * 2 * SMALL),  # forward, and the gradient by the image
    *(
        Kind(f"people_random:{name}", 6, 260, 2 * (CONV if name == "shuffled" else SMALL), random=True)
        for name in ("dropout_left_on", "shuffled", "noise", "numpy_noise", "remembers")
    ),
    Kind("people_random:bound", 7, 260 + 24, 3 * SMALL, batch=3),
    Kind("people_random:bound_by_view", 7, 260, 3 * SMALL, batch=3),
    Kind("people_random:across_images", 7, 260, 3 * SMALL, batch=3),
]

NO_MODULE = r"torch\.nn\.Module"
FORMS = [
    Kind("people_forms:plain", 8, 260, 2 * SMALL),
    Kind("people_forms:Small", 8, 260, 2 * SMALL),
    Kind("people_forms:instance", 8, 260, 2 * SMALL, status=EITHER, says=NO_MODULE),
    Kind("people_forms:with_transform", 8, 260, 2 * SMALL, status=EITHER, says=NO_MODULE),
    Kind("people_forms:with_config", 8, 260, 2 * SMALL, status=EITHER, says=NO_MODULE),
    *(
        Kind(f"people_forms:{name}", 8, None, None, status=REFUSED, says=NO_MODULE)
        for name in ("in_a_list", "nothing", "weights_alone", "asynchronous")
    ),
    Kind("people_forms:function", 8, None, 2 * SMALL, status=EITHER, says=NO_MODULE),
    Kind("people_forms:scripted", 8, 260, 2 * SMALL),
    Kind("people_forms:traced", 8, 260, 2 * SMALL),
    Kind("people_forms:frozen", 8, None, 2 * SMALL, by_dtype=narrow(*EITHER)),
    Kind("people_forms:exported", 8, 260, 2 * SMALL, by_dtype=narrow(*EITHER)),
    Kind("people_forms:exported_module", 8, 260, 2 * SMALL, by_dtype=narrow(*EITHER)),
    Kind("people_forms:symbolically_traced", 8, 260, 2 * SMALL),
    Kind("people_forms:compiled", 8, 260, 2 * SMALL),
    Kind("people_forms:compiled_forward", 8, 260, 2 * SMALL),
    Kind("people_forms:data_parallel", 8, 260, 2 * SMALL),
    Kind("people_forms:hooked", 8, 260, 2 * SMALL),
    Kind("people_forms:needs:classes=4", 8, 260, 2 * SMALL),
    Kind("people_forms:needs", 8, None, None, status=REFUSED, says="classes"),
    Kind("people_forms:fails", 8, None, None, status=("crashed", "unsupported"), says=r"best\.pth"),
    Kind("people_forms:loads", 8, None, None, status=("crashed", "unsupported"), says=r"no_such_checkpoint\.pt"),
]

KINDS = [*IMAGES, *OUTPUTS, *INPUTS, *SEQUENCES, *WEIGHTS, *FORWARDS, *FORMS]
