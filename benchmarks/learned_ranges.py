"""Do ranges and biases that are learned together bring int8 closer to the float model?

As in AdaQuant (arXiv:2006.10518) and BRECQ (arXiv:2102.05426), in simulation: kedge's prepared
network, each activation held in 256 steps with gradients straight through the rounding (LSQ,
arXiv:1902.08153). Learned are the ends of every range and every bias, by Adam with a cosine rate:

- blocks: one block after the other, by the squared error of its output, behind the blocks before
- answers: all at once, by the divergence of the answers

    python benchmarks/learned_ranges.py --model FILE.keras --card NAME --images DIR

Needs keras-kedge[convert]. All figures are from images that nothing was fitted to. The step sizes
are arguments; those of the committed results were chosen on the selection images.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import machine
from kedge_convert.images import ImageSplit, collect, tensors
from kedge_convert.load.request import SourceRequest
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.running import fold_over, keeps_scale
from kedge_convert.sampling import Sampling
from kedge_convert.source import Source, load_source

BATCH, CHUNK = 16, 20
STEPS = 255
Images = NDArray[np.float32]
Values = dict[GraphTensor, Any]


@dataclass(frozen=True)
class Row:
    """Divergence in nats and agreement with the float model, before and after.

    `loss`: of the training images, by the last epoch to the first.
    """

    model: str
    way: str
    split: int
    kl: float
    learned_kl: float
    agreement: float
    learned_agreement: float
    loss: float


class Learner:
    """A prepared network whose activations' ranges and biases can be learned."""

    def __init__(self, floats: Graph, rounded: Graph, images: Images) -> None:
        """Take the ranges of all values on the images that weights were fitted to."""
        self.floats, self.rounded = floats, rounded
        self.own = {node.output: node for node in floats.nodes}
        ends: dict[GraphTensor, tuple[float, float]] = {}

        def visit(tensor: GraphTensor, value: Images) -> None:
            low, high = ends.get(tensor, (0.0, 0.0))
            ends[tensor] = min(low, float(value.min())), max(high, float(value.max()))

        fold_over(rounded, images, visit)
        held = [node for node in rounded.nodes if not keeps_scale(node)]
        self.ends = {node.output: ends[node.output] for node in held}
        # Shares of the ends, and biases in steps of the output: all of one size.
        self.shares = {tensor: tf.Variable([1.0, 1.0]) for tensor in self.ends}
        self.shifts = {
            node.output: tf.Variable(tf.zeros(len(node.weights.bias)))
            for node in held
            if node.weights
        }

    def run(self, nodes: Sequence[Node], start: Values) -> Values:
        """Return the values behind some nodes, in 256 steps each."""
        values = dict(start)
        for node in nodes:
            values[node.output] = self._held(node, self._shifted(node).run(values.__getitem__))
        return values

    def _shifted(self, node: Node) -> Node:
        if node.weights is None:
            return node
        low, high = self.ends[node.output]
        shift = self.shifts[node.output] * ((high - low) / STEPS)
        return replace(node, weights=replace(node.weights, bias=node.weights.bias + shift))

    def _held(self, node: Node, value: Any) -> Any:
        if node.output not in self.ends:
            return value
        low, high = tf.unstack(self.shares[node.output] * self.ends[node.output])
        step = tf.maximum(high - low, 1e-9) / STEPS
        zero = tf.stop_gradient(tf.round(-low / step))
        inner = value / step
        whole = inner + tf.stop_gradient(tf.round(inner) - inner)
        return tf.clip_by_value(whole, -zero, STEPS - zero) * step

    def variables(self, nodes: Sequence[Node]) -> tuple[list[Any], list[Any]]:
        """Return the shares and the shifts of some nodes."""
        tensors = [node.output for node in nodes]
        shares = [self.shares[each] for each in tensors if each in self.shares]
        return shares, [self.shifts[each] for each in tensors if each in self.shifts]


def fit(
    variables: tuple[list[Any], list[Any]],
    loss: Callable[[Any, Any], Any],
    pairs: tuple[Images, Images],
    arguments: argparse.Namespace,
) -> float:
    """Learn by a loss of (inputs, targets); return the last epoch's loss to the first's."""
    flat = [each for group in variables for each in group]
    optimizers = [tf.keras.optimizers.Adam(), tf.keras.optimizers.Adam()]
    for optimizer, group in zip(optimizers, variables, strict=True):
        optimizer.build(group)

    @tf.function
    def step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(inputs, targets)
        found = tape.gradient(value, flat, unconnected_gradients="zero")
        at = len(variables[0])
        for optimizer, group, own in zip(
            optimizers, variables, (found[:at], found[at:]), strict=True
        ):
            if group:
                optimizer.apply_gradients(zip(own, group, strict=True))
        return value

    rng, losses = np.random.default_rng(arguments.split), []
    for epoch in range(arguments.epochs):
        cosine = 0.5 * (1 + np.cos(np.pi * epoch / arguments.epochs))
        for optimizer, rate in zip(
            optimizers, (arguments.range_rate, arguments.bias_rate), strict=True
        ):
            optimizer.learning_rate.assign(rate * cosine)
        order = rng.permutation(len(pairs[0]))[: len(pairs[0]) // BATCH * BATCH]
        parts = order.reshape(-1, BATCH)
        losses.append(np.mean([float(step(pairs[0][at], pairs[1][at])) for at in parts]))
    return float(losses[-1] / losses[0])


def by_answers(learner: Learner, images: Images, arguments: argparse.Namespace) -> float:
    """Learn all ranges and biases at once."""
    graph, nodes = learner.rounded, learner.rounded.nodes
    targets = applied(learner.floats.nodes, graph.input, images)

    def loss(inputs: Any, wanted: Any) -> Any:
        answers = learner.run(nodes, {graph.input: inputs})[graph.output]
        return tf.reduce_mean(divergence(wanted, answers))

    return fit(learner.variables(nodes), loss, (images, targets), arguments)


def by_blocks(learner: Learner, images: Images, arguments: argparse.Namespace) -> float:
    """Learn block by block; return the mean of the blocks' losses to their first ones."""
    rounded, floats, start = images, images, learner.rounded.input
    ratios = []
    for nodes in blocks(learner.rounded):
        end = nodes[-1].output
        targets = applied([learner.own[node.output] for node in nodes], start, floats)
        power = float(np.square(targets, dtype=np.float64).mean())

        def loss(inputs: Any, wanted: Any, at: Any = (nodes, start, end, power)) -> Any:
            own, before, behind, scale = at
            found = learner.run(own, {before: inputs})[behind]
            return tf.reduce_mean(tf.square(found - wanted)) / scale

        ratios.append(fit(learner.variables(nodes), loss, (rounded, targets), arguments))
        rounded = applied(nodes, start, rounded, learner)
        floats, start = targets, end
    return float(np.mean(ratios))


def blocks(graph: Graph) -> list[list[Node]]:
    """Return runs of nodes with two layers or more, between which one value lives."""
    last, alive, found, current = graph.last_uses(), {graph.input}, [], list[Node]()
    for i, node in enumerate(graph.nodes):
        current.append(node)
        alive.add(node.output)
        alive -= {each for each in node.inputs if last.get(each) == i}
        layers = sum(each.weights is not None for each in current)
        if (len(alive) == 1 and layers > 1) or i == len(graph.nodes) - 1:
            found.append(current)
            current = []
    return found


def applied(
    nodes: Sequence[Node], start: GraphTensor, images: Images, learner: Learner | None = None
) -> Images:
    """Return what some nodes make of images, in steps where there is a learner."""

    @tf.function(reduce_retracing=True)
    def run(value: Any) -> Any:
        values = {start: value}
        if learner is not None:
            return learner.run(nodes, values)[nodes[-1].output]
        for node in nodes:
            values[node.output] = node.run(values.__getitem__)
        return values[nodes[-1].output]

    parts = range(0, len(images), CHUNK)
    return np.concatenate([np.asarray(run(images[at : at + CHUNK])) for at in parts])


def divergence(reference: Any, answers: Any) -> Any:
    """Return the divergence of answers' probabilities from the reference's, in nats, [images]."""
    wanted, found = tf.nn.log_softmax(reference), tf.nn.log_softmax(answers)
    return tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=1)


def measured(learner: Learner, images: Images) -> tuple[float, float]:
    """Return mean divergence and agreement."""
    graph = learner.rounded
    wanted = applied(learner.floats.nodes, graph.input, images)
    found = applied(graph.nodes, graph.input, images, learner)
    same = wanted.argmax(axis=1) == found.argmax(axis=1)
    return float(np.mean(divergence(wanted, found))), float(same.mean())


WAYS = {"blocks": by_blocks, "answers": by_answers}


def row(way: str, learner: Learner, photos: list[Images], arguments: argparse.Namespace) -> Row:
    """Learn in one way; return what it brings."""
    fitted, test = photos
    kl, agreement = measured(learner, test)
    loss = WAYS[way](learner, fitted, arguments)
    learned_kl, learned = measured(learner, test)
    name = Path(arguments.model).stem
    return Row(name, way, arguments.split, kl, learned_kl, agreement, learned, loss)


def prepared(source: Source, split: ImageSplit, arguments: argparse.Namespace) -> Learner:
    """Return the network with kedge's own prepared weights."""
    images = np.concatenate(list(tensors(split.preparation, source.input)))
    graph = preparation.equalised(preparation.plan(source.model), images)
    rounded = preparation.round_weights(graph, images, preparation.Rounding(arguments.split))
    return Learner(graph, rounded, images)


def main() -> None:
    arguments = _arguments()
    source = load_source(SourceRequest(arguments.model, card=arguments.card))
    split = collect(arguments.images, Sampling(200, 100, arguments.split))
    test = split.enlarged(300).validation[100:]
    photos = [
        np.concatenate(list(tensors(paths, source.input))) for paths in (split.preparation, test)
    ]
    rows = []
    for way in WAYS:
        rows.append(row(way, prepared(source, split, arguments), photos, arguments))
        print(rows[-1], flush=True)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(each) for each in rows], indent=2)
        name = f"learned-ranges-{Path(arguments.model).stem}-{machine.slug()}.json"
        (arguments.out / name).write_text(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--card", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--range-rate", type=float, default=0.0005, help="shares of an end")
    parser.add_argument("--bias-rate", type=float, default=0.005, help="steps of the output")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
