"""Quantise a float file with another project's tool: run by an interpreter that has the tool.

It imports nothing of kedge, whose needs may clash with the tool's. `quantisation_ways.py` calls
it in a process of its own:

    PYTHON peer_quantise.py TOOL MODEL INPUTS.npy OUT

MODEL is a float .tflite or .onnx file, INPUTS float32 [images, 1, height, width, channels]. A tool
that has several recipes makes all of them, and the one whose answers on the last sixth of the
images are closest to the float model's is written; its name is printed.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Recipes = Iterator[tuple[str, bytes]]
ALGORITHMS = ("min_max_uniform_quantize", "MSE", "OCTAV", "GPTQ")
# AdaQuant's steps per layer, in numpy: with the tool's own 1000 a model takes hours.
STEPS, ADAQUANT_IMAGES = 100, 32


class MissingError(Exception):
    """The interpreter lacks the tool, or none of its recipes works; one line."""


def litert_quantizer(model: Path, inputs: Floats) -> Recipes:
    """Static int8 by each of its algorithms."""
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import quantizer, recipe

    (name,) = Interpreter(str(model)).get_signature_list()["serving_default"]["inputs"]
    # A list: the tool runs through it twice, once to count.
    batches = [{name: each} for each in inputs]
    for algorithm in ALGORITHMS:
        tool = quantizer.Quantizer(str(model))
        try:
            tool.load_quantization_recipe(recipe.static_wi8_ai8(algorithm))
            ranges = tool.calibrate({"serving_default": batches})
            yield algorithm, bytes(tool.quantize(ranges).quantized_model)
        except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            print(f"{algorithm}: {_line(error)}", file=sys.stderr)


def nncf(model: Path, inputs: Floats) -> Recipes:
    """Post-training quantisation, with fast and with accurate bias correction."""
    import nncf
    import onnx

    name = onnx.load(model).graph.input[0].name
    data = nncf.Dataset(list(inputs), lambda each: {name: each})
    for title, fast in {"fast bias correction": True, "bias correction": False}.items():
        made = nncf.quantize(
            onnx.load(model),
            data,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            fast_bias_correction=fast,
        )
        yield title, made.SerializeToString()


def onnxsim(model: Path, inputs: Floats) -> Recipes:
    """Equalise, quantise all of the graph, and correct the biases, as its AutoQuant for int4."""
    import onnxsim as tool

    floats, plain, batches = _full_qdq(model, inputs)
    yield "equalised, full QDQ", plain.SerializeToString()
    corrected = tool.correct_bias(floats, plain, batches)
    yield "equalised, full QDQ, bias correction", corrected.SerializeToString()


def adaquant(model: Path, inputs: Floats) -> Recipes:
    """Equalise, quantise all of the graph, and tune layer by layer by AdaQuant, with onnxsim."""
    from onnxsim.quark_finetune import FinetuneOptions, finetune

    floats, plain, batches = _full_qdq(model, inputs)
    options = FinetuneOptions(algorithm="adaquant", num_iterations=STEPS)
    tuned, _ = finetune(floats, plain, batches[:ADAQUANT_IMAGES], options)
    yield f"equalised, full QDQ, AdaQuant, {STEPS} steps", tuned.SerializeToString()


def _full_qdq(model: Path, inputs: Floats) -> tuple[Any, Any, list[dict[str, Floats]]]:
    """Return the equalised float model, the int8 model, and the inputs as the tool takes them."""
    import onnx
    import onnxsim as tool
    from onnxsim.full_qdq import quantize_full_qdq

    floats = tool.cross_layer_equalize(onnx.load(model))
    batches = [{floats.graph.input[0].name: each} for each in inputs]
    return floats, quantize_full_qdq(floats, batches, activation_dtype="int8"), batches


def _tflite(content: bytes, inputs: Floats) -> Floats:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for each in inputs:
        interpreter.set_tensor(source["index"], _stored(each, source))
        interpreter.invoke()
        answers.append(_real(interpreter.get_tensor(target["index"]), target))
    return np.concatenate(answers)


def _stored(values: Floats, tensor: Any) -> NDArray[Any]:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    steps = np.round(values / scale) + zero
    return np.asarray(steps.clip(limits.min, limits.max), tensor["dtype"])


def _real(values: NDArray[Any], tensor: Any) -> Floats:
    scale, zero = tensor["quantization"]
    floats = values.astype(np.float32)
    return floats if values.dtype == np.float32 else np.float32(scale) * (floats - np.float32(zero))


def _onnx(content: bytes, inputs: Floats) -> Floats:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: each})[0] for each in inputs])


RUN: dict[str, Callable[[bytes, Floats], Floats]] = {".tflite": _tflite, ".onnx": _onnx}
TOOLS: dict[str, Callable[[Path, Floats], Recipes]] = {
    "litert-quantizer": litert_quantizer,
    "nncf": nncf,
    "onnxsim": onnxsim,
    "onnxsim AdaQuant": adaquant,
}


def divergence(reference: Floats, answers: Floats) -> float:
    """Return the mean Kullback-Leibler divergence of softmax's answers, in nats."""
    ours, theirs = (_log_softmax(each.astype(np.float64)) for each in (reference, answers))
    return float((np.exp(ours) * (ours - theirs)).sum(axis=-1).mean())


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def best(tool: str, model: Path, inputs: Floats) -> tuple[str, bytes]:
    """Return the name and the file of the recipe that is closest to the float model.

    Raises MissingError.
    """
    run, judged = RUN[model.suffix], inputs[-max(1, len(inputs) // 6) :]
    reference = run(model.read_bytes(), judged)
    found: dict[float, tuple[str, bytes]] = {}
    try:
        for name, content in TOOLS[tool](model, inputs):
            kl = divergence(reference, run(content, judged))
            found[kl] = name, content
            print(f"{name}: KL {kl:.4f}", file=sys.stderr)
    except ImportError as error:
        raise MissingError(f"not installed: {_line(error)}") from None
    # A later recipe that fails takes nothing from the earlier ones; its reason is on stderr.
    except Exception as error:
        print(f"{tool}: {_line(error)}", file=sys.stderr)
        if not found:
            raise MissingError(f"fails: {_line(error)}") from None
    if not found:
        raise MissingError("no recipe works")
    return found[min(found)]


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def main() -> None:
    tool, model, inputs, out = sys.argv[1:]
    try:
        name, content = best(tool, Path(model), np.load(inputs))
    except MissingError as reason:
        sys.exit(str(reason))
    Path(out).write_bytes(content)
    print(name)


if __name__ == "__main__":
    main()
