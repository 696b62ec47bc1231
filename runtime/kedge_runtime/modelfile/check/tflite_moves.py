"""Compute the output shapes of TFLite operators that cut, join, pad and pick."""

from kedge_runtime.modelfile.check.tflite_shapes import (
    MAX_STEP,
    Shape,
    Shapes,
    TfliteStep,
    UnsoundError,
    axis_of,
    bounded,
    in_words,
)


def concatenation(step: TfliteStep) -> Shapes:
    """Join along an existing axis."""
    first = step.shape()
    axis = axis_of(step.number(0), len(first))
    total = 0
    for place in range(len(step.inputs)):
        shape = step.shape(place)
        if len(shape) != len(first) or _without(shape, axis) != _without(first, axis):
            raise UnsoundError(f"the shapes {in_words(first)} and {in_words(shape)} don't join")
        total += shape[axis]
    return [(*first[:axis], total, *first[axis + 1 :])]


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def pack(step: TfliteStep) -> Shapes:
    """Join along a new axis."""
    first = step.shape()
    axis = axis_of(step.number(1), len(first) + 1)
    if step.number(0) != len(step.inputs) or any(
        step.shape(place) != first for place in range(len(step.inputs))
    ):
        raise UnsoundError(
            f"it packs {step.number(0)} of {len(step.inputs)} tensors, or unlike ones"
        )
    return [(*first[:axis], len(step.inputs), *first[axis:])]


def unpack(step: TfliteStep) -> Shapes:
    """Split an axis into slices without it."""
    shape = step.shape()
    axis = axis_of(step.number(1), len(shape))
    if not step.number(0) == shape[axis] == len(step.outputs):
        raise UnsoundError(f"it unpacks {step.number(0)} of {shape[axis]} as {len(step.outputs)}")
    return [_without(shape, axis)] * len(step.outputs)


def split(step: TfliteStep) -> Shapes:
    """Split equally along the axis that the first input names."""
    shape, found = step.shape(1), step.integers(0)
    axis = axis_of(_one(found), len(shape))
    count = step.number(0)
    if count != len(step.outputs) or shape[axis] % count:
        raise UnsoundError(f"it splits {shape[axis]} into {count} as {len(step.outputs)}")
    return [(*shape[:axis], shape[axis] // count, *shape[axis + 1 :])] * count


def split_v(step: TfliteStep) -> Shapes:
    """Split into the sizes of the second input; one -1 is the rest."""
    shape, sizes = step.shape(), step.integers(1)
    axis = axis_of(_one(step.integers(2)), len(shape))
    rest = shape[axis] - sum(size for size in sizes if size != -1)
    whole = [rest if size == -1 else size for size in sizes]
    if not step.number(0) == len(sizes) == len(step.outputs) or sizes.count(-1) > 1:
        raise UnsoundError(f"it splits into {len(sizes)} parts as {len(step.outputs)}")
    if sum(whole) != shape[axis] or min(whole) < 1:
        raise UnsoundError(f"it splits {shape[axis]} into {in_words(sizes)}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in whole]


def _one(found: Shape) -> int:
    if len(found) != 1:
        raise UnsoundError(f"{len(found)} numbers where one belongs")
    return found[0]


def slice_(step: TfliteStep) -> Shapes:
    """Cut a part by start and size; -1 reaches to the end."""
    shape, sizes = step.shape(), step.integers(2)
    if len(sizes) != len(shape):
        raise UnsoundError(f"it slices {in_words(shape)} by {in_words(sizes)}")
    tensor = step.given(1)
    begins = None if tensor is None else tensor.integers()
    if begins is None:
        # A loop's counter: the kernel checks it against the sizes.
        if -1 in sizes or any(size > side for size, side in zip(sizes, shape, strict=True)):
            raise UnsoundError(f"it slices {in_words(sizes)} out of {in_words(shape)}")
        return [sizes]
    if len(begins) != len(shape):
        raise UnsoundError(f"it slices {in_words(shape)} from {in_words(begins)}")
    triples = list(zip(begins, sizes, shape, strict=True))
    found = tuple(side - begin if size == -1 else size for begin, size, side in triples)
    if any(b < 0 or f < 1 or b + f > s for (b, _, s), f in zip(triples, found, strict=True)):
        raise UnsoundError(f"it slices {in_words(sizes)} out of {in_words(shape)}")
    return [found]


def strided_slice(step: TfliteStep) -> Shapes:
    """Cut by Python's slices with TensorFlow's masks."""
    shape = step.shape()
    rank = len(shape)
    ellipsis, new, shrink = (step.number(field) for field in (2, 3, 4))
    tensors = [step.given(place) for place in (1, 2, 3)]
    lists = [None if tensor is None else tensor.integers() for tensor in tensors]
    counts = {tensor.elements for tensor in tensors if tensor is not None}
    if ellipsis or new:
        return [None]
    if len(counts) != 1 or max(counts) > rank or any(step.number(f) < 0 for f in (0, 1, 4)):
        raise UnsoundError(f"it slices {rank} dimensions by {sorted(counts)}")
    begins, ends, strides = lists
    if strides is None or 0 in strides:
        raise UnsoundError("its stride is 0 or computed")
    found: list[int] = []
    for i in range(rank):
        if i >= len(strides):
            found.append(shape[i])
        elif begins is not None and ends is not None:
            found += _cut(step, i, shape[i], (begins[i], ends[i], strides[i]))
        elif not shrink >> i & 1:
            return [None]
    return [tuple(found)]


def _cut(step: TfliteStep, i: int, side: int, cut: tuple[int, int, int]) -> list[int]:
    """Return the side that remains of an axis, or none where it is removed."""
    begin, end, stride = cut
    masks = [step.number(field) >> i & 1 for field in (0, 1, 4)]
    if step.number(5, "?"):
        end += begin
    if masks[2]:
        if not -side <= begin < side:
            raise UnsoundError(f"it takes item {begin} of {side}")
        return []
    places = range(side)[slice(None if masks[0] else begin, None if masks[1] else end, stride)]
    if not len(places):
        raise UnsoundError(f"it takes {begin}:{end}:{stride} of {side}")
    return [len(places)]


def pad(step: TfliteStep) -> Shapes:
    """Pad by the second input, [rank, 2], before and behind."""
    shape, stated = step.shape(), step.integers(1)
    if step.shape(1) != (len(shape), 2) or min(stated, default=0) < 0:
        raise UnsoundError(f"it pads {in_words(shape)} by {in_words(stated)}")
    pairs = zip(stated[::2], stated[1::2], strict=True)
    return [tuple(side + a + b for side, (a, b) in zip(shape, pairs, strict=True))]


def mirror_pad(step: TfliteStep) -> Shapes:
    """Pad by mirroring the input; mode 0 leaves the edge out."""
    found, stated, mode = pad(step), step.integers(1), step.number(0, "b")
    for i, side in enumerate(step.shape()):
        if mode not in (0, 1) or max(stated[2 * i : 2 * i + 2]) > side - (mode == 0):
            raise UnsoundError(f"it mirrors more than the {side} that are there")
    return found


def tile(step: TfliteStep) -> Shapes:
    """Repeat each side."""
    shape, times = step.shape(), step.integers(1)
    if len(times) != len(shape) or min(times, default=1) < 1:
        raise UnsoundError(f"it repeats {in_words(shape)} by {in_words(times)}")
    return [tuple(side * count for side, count in zip(shape, times, strict=True))]


def broadcast_to(step: TfliteStep) -> Shapes:
    """Broadcast to the second input."""
    shape, wanted = step.shape(), step.integers(1)
    tail = wanted[len(wanted) - len(shape) :]
    if len(wanted) < len(shape) or any(
        side not in (1, other) for side, other in zip(shape, tail, strict=True)
    ):
        raise UnsoundError(f"{in_words(shape)} can't be stretched to {in_words(wanted)}")
    return [wanted]


def gather(step: TfliteStep) -> Shapes:
    """Pick items of an axis; the kernel checks computed positions."""
    shape, places = step.shape(), step.shape(1)
    axis = axis_of(step.number(0), len(shape))
    batch = step.number(1)
    if not 0 <= batch <= min(axis, len(places)) or shape[:batch] != places[:batch]:
        raise UnsoundError(
            f"it gathers {in_words(places)} from {in_words(shape)} in {batch} batches"
        )
    _places(step, 1, shape[axis])
    return [(*shape[:axis], *places[batch:], *shape[axis + 1 :])]


def _places(step: TfliteStep, place: int, size: int) -> None:
    tensor = step.given(place)
    found = None if tensor is None else tensor.integers()
    if found and not 0 <= min(found) <= max(found) < size:
        raise UnsoundError(f"it picks items of {size} that aren't there")


def gather_nd(step: TfliteStep) -> Shapes:
    """Pick items by several positions each."""
    shape, places = step.shape(), step.shape(1)
    depth = places[-1] if places else 0
    if not 1 <= depth <= len(shape):
        raise UnsoundError(f"it gathers {in_words(places)} from {in_words(shape)}")
    tensor = step.given(1)
    found = None if tensor is None else tensor.integers()
    for i in range(depth):
        if found and not 0 <= min(found[i::depth]) <= max(found[i::depth]) < shape[i]:
            raise UnsoundError(f"it picks items of {in_words(shape)} that aren't there")
    return [(*places[:-1], *shape[depth:])]


def embedding_lookup(step: TfliteStep) -> Shapes:
    """Pick rows by their positions."""
    (count,), shape = step.shape(), step.shape(1)
    _places(step, 0, shape[0])
    return [(count, *shape[1:])]


def resize(step: TfliteStep) -> Shapes:
    """Resize [n, h, w, c] to the two sides of the second input."""
    n, h, w, c = step.shape()
    sides = step.integers(1)
    if len(sides) != 2 or not all(1 <= side <= 1 << 15 for side in sides):
        raise UnsoundError(f"it resizes {h}x{w} to {in_words(sides)}")
    # resize_nearest_neighbor.cc and resize_bilinear.cc: halves are for either of them.
    first = 2 if step.kind == "RESIZE_BILINEAR" else 0
    if step.number(first, "?") and step.number(first + 1, "?"):
        raise UnsoundError("it aligns both corners and centres")
    return [(n, *sides, c)]


def space_to_depth(step: TfliteStep) -> Shapes:
    """Move blocks into channels."""
    n, h, w, c = step.shape()
    block = bounded(step, 0, "block")
    if h % block or w % block:
        raise UnsoundError(f"its block of {block} doesn't fit {h}x{w}")
    return [(n, h // block, w // block, c * block * block)]


def depth_to_space(step: TfliteStep) -> Shapes:
    """Move channels into blocks."""
    n, h, w, c = step.shape()
    block = bounded(step, 0, "block")
    if c % (block * block):
        raise UnsoundError(f"its block of {block} doesn't fit {c} channels")
    return [(n, h * block, w * block, c // (block * block))]


def space_to_batch(step: TfliteStep) -> Shapes:
    """Move blocks of the padded sides into the batch."""
    n, *sides, c = step.shape()
    blocks, pads = step.integers(1), step.integers(2)
    _blocks(sides, blocks, pads)
    padded = [s + pads[2 * i] + pads[2 * i + 1] for i, s in enumerate(sides)]
    if any(side % block for side, block in zip(padded, blocks, strict=True)):
        raise UnsoundError(f"its blocks of {in_words(blocks)} don't fit {in_words(tuple(padded))}")
    for block in blocks:
        n *= block
    return [(n, *(side // block for side, block in zip(padded, blocks, strict=True)), c)]


def batch_to_space(step: TfliteStep) -> Shapes:
    """Move the batch into blocks, and crop the sides."""
    n, *sides, c = step.shape()
    blocks, crops = step.integers(1), step.integers(2)
    _blocks(sides, blocks, crops)
    whole = [
        side * block - crops[2 * i] - crops[2 * i + 1]
        for i, (side, block) in enumerate(zip(sides, blocks, strict=True))
    ]
    for block in blocks:
        n, left = divmod(n, block)
        if left:
            raise UnsoundError(f"its blocks of {in_words(blocks)} don't fit the batch")
    if min(whole) < 1:
        raise UnsoundError("it crops everything away")
    return [(n, *whole, c)]


def _blocks(sides: list[int], blocks: Shape, pads: Shape) -> None:
    if len(blocks) != len(sides) or len(pads) != 2 * len(sides):
        raise UnsoundError(f"it has blocks of {in_words(blocks)} for {len(sides)} sides")
    if not all(1 <= block <= MAX_STEP for block in blocks) or min(pads) < 0:
        raise UnsoundError(f"its blocks are {in_words(blocks)}, padded by {in_words(pads)}")


def shape_of(step: TfliteStep) -> Shapes:
    """Return a list with one number per dimension."""
    step.outputs[0].values = step.shape()
    return [(len(step.shape()),)]


def fill(step: TfliteStep) -> Shapes:
    """Return the shape that the first input states."""
    return [step.integers(0)]


def one_hot(step: TfliteStep) -> Shapes:
    """Add an axis of `depth`, the second input."""
    shape, depth = step.shape(), _one(step.integers(1))
    axis = step.number(0)
    axis = len(shape) if axis == -1 else axis_of(axis, len(shape) + 1)
    if not 1 <= depth <= 1 << 20:
        raise UnsoundError(f"its depth is {depth}")
    return [(*shape[:axis], depth, *shape[axis:])]


def top_k(step: TfliteStep) -> Shapes:
    """Return the k largest of each row, and their positions."""
    shape, k = step.shape(), _one(step.integers(1))
    if not shape or not 1 <= k <= shape[-1]:
        raise UnsoundError(f"it takes {k} of {in_words(shape)}")
    return [(*shape[:-1], k)] * 2


def scatter_nd(step: TfliteStep) -> Shapes:
    """Return the shape of the third input; the first has the positions."""
    places, updates, wanted = step.shape(), step.shape(1), step.integers(2)
    depth = places[-1] if places else 0
    if not 1 <= depth <= len(wanted) or updates != (*places[:-1], *wanted[depth:]):
        raise UnsoundError(
            f"it scatters {in_words(updates)} by {in_words(places)} in {in_words(wanted)}"
        )
    found = step.integers(0)
    if any(not 0 <= found[j] < wanted[j % depth] for j in range(len(found))):
        raise UnsoundError(f"it writes items of {in_words(wanted)} that aren't there")
    return [wanted]


def update_slice(step: TfliteStep) -> Shapes:
    """Keep the first shape; the second lies in it. The kernel clamps positions."""
    shape, update, places = step.shape(), step.shape(1), step.shape(2)
    if len(update) != len(shape) or places != (len(shape),):
        raise UnsoundError(
            f"it writes {in_words(update)} into {in_words(shape)} at {in_words(places)}"
        )
    if any(part > side for part, side in zip(update, shape, strict=True)):
        raise UnsoundError(f"it writes {in_words(update)} into {in_words(shape)}")
    return [shape]
