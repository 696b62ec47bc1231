"""Refuse SavedModels and graphs that do more than compute: TensorFlow runs them as programs.

Loading a SavedModel runs its initialisers. So kedge first reads the file as a record: TensorFlow's
classes for the message run nothing. An allowlist (`allowed_operations.py`) decides over the main
graph and every function of every meta graph, called or not.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from kedge_convert.load.allowed_operations import COMPUTING
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder

GRAPH = "saved_model.pb"
VARIABLES = "variables"
# Operations of TensorFlow's own saver. Every SavedModel holds them, and kedge never runs them.
_SAVING = frozenset({"MergeV2Checkpoints", "SaveV2"})
_RESTORING = "RestoreV2"
# PrintV2's other streams are files: `file:///home/...`.
_STREAMS = frozenset({"stdout", "stderr", "log(info)", "log(warning)", "log(error)"})
# The first pattern that matches an operation's name is the reason of the refusal.
_REASONS = {
    r"Debug|Send|Recv|Collective|Nccl|Remote|DataService|^Rpc": "which may send data elsewhere",
    r"PyFunc": "which runs Python",
    r"Write|Save|Merge|Summary|Print|ToTFRecord|Snapshot": "which may write files",
    r"Read|Restore|File|Dataset|Iterator|ImmutableConst|Vocab|LoadAndRemap": "which may read files",
}
_UNKNOWN = "which isn't on kedge's list"
_REMEDY = "export a function from pixels to numbers alone, without it"
_SAVERS = "savers"  # the collection of TensorFlow 1 that may hold the saver's operations

Place = tuple[str, str]  # a function's name, or "" and that of a node of the main graph


@contextmanager
def checked(path: Path) -> Iterator[Path]:
    """Yield a folder with only the checked parts of the SavedModel in `path`.

    TensorFlow then loads the very bytes that were checked, and none of the folder's other files.
    Raises UsageError for a program that does more than compute, and for links that lead out of the
    folder.
    """
    content = _inside(path, path / GRAPH).read_bytes()
    message = require("tensorflow.core.protobuf.saved_model_pb2").SavedModel
    refuse_program(message.FromString(content))
    with temporary_folder() as folder:
        (folder / GRAPH).write_bytes(content)
        (folder / VARIABLES).mkdir()
        for each in sorted((path / VARIABLES).glob("*")):
            (folder / VARIABLES / each.name).symlink_to(_inside(path, each))
        yield folder


def _inside(folder: Path, path: Path) -> Path:
    """Return the real path of a file of the folder. Raises UsageError where it lies outside."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise UsageError(
            f"{path.relative_to(folder)} is a link to {real}, which lies outside the folder: if "
            "you trust that file, copy the folder by cp -rL, and give the copy"
        )
    return real


def refuse_program(saved: Any) -> None:
    """Raise UsageError for a SavedModel, a parsed message, that does more than compute."""
    # The rule of TensorFlow's loader. In the older form it restores variables by the graph.
    in_objects = len(saved.meta_graphs) == 1 and saved.meta_graphs[0].HasField("object_graph_def")
    for meta in saved.meta_graphs:
        program = _Program(meta.graph_def)
        saver = meta.saver_def
        running = program.reached(_roots(meta), _bound(meta))
        restoring = program.reached([saver.restore_op_name]) - running
        saving = program.reached([saver.save_tensor_name]) - running - restoring
        for place, node in program.not_allowed():
            reads = place in restoring and (in_objects or _restores(place, node, saver))
            writes = node.op in _SAVING and place in saving
            if not (writes or (node.op == _RESTORING and reads)):
                raise _refusal(node)


def refuse_graph(definition: Any) -> None:
    """Raise UsageError for a GraphDef that does more than compute."""
    for _, node in _Program(definition).not_allowed():
        raise _refusal(node)


def _refusal(node: Any) -> UsageError:
    reasons = (why for pattern, why in _REASONS.items() if re.search(pattern, node.op))
    return UsageError(
        f"its graph holds the operation {node.op[:60]!r}, {next(reasons, _UNKNOWN)}; kedge loads "
        f"operations that only compute: {_REMEDY}"
    )


def _restores(place: Place, node: Any, saver: Any) -> bool:
    """Whether a node of the main graph reads the loader's file, and no other."""
    prefix = _node(node.input[0]) if node.input else ""
    return not place[0] and prefix == _node(saver.filename_tensor_name)


def _roots(meta: Any) -> Iterator[str]:
    """Yield the main graph's tensors that a user or the loader may run."""
    for signature in meta.signature_def.values():
        yield from (each.name for each in signature.outputs.values())
    for key, collection in meta.collection_def.items():
        yield from collection.node_list.value  # such as main_op and table_initializer
        if key != _SAVERS:
            yield from chain.from_iterable(map(_initialisers, collection.bytes_list.value))


def _initialisers(content: bytes) -> tuple[str, ...]:
    """Return the initialisers of a collection's variable; other messages name other tensors."""
    module = require("tensorflow.core.framework.variable_pb2")
    try:
        variable = module.VariableDef.FromString(content)
    except require("google.protobuf.message").DecodeError:
        return ()
    return (variable.initializer_name, variable.initial_value_name)


def _bound(meta: Any) -> Iterator[str]:
    """Yield the functions in a SavedModel's objects: the loader may run any of them."""
    objects = meta.object_graph_def
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name


@dataclass(frozen=True)
class _Program:
    """A GraphDef: its main graph, and the functions of its library."""

    definition: Any

    @cached_property
    def functions(self) -> dict[str, list[Any]]:
        """The nodes of the functions by name; of all where several have the same."""
        nodes = defaultdict[str, list[Any]](list)
        for each in self.definition.library.function:
            nodes[each.signature.name] += each.node_def
        return nodes

    @cached_property
    def nodes(self) -> dict[str, list[Any]]:
        """The nodes of the main graph by name."""
        nodes = defaultdict[str, list[Any]](list)
        for node in self.definition.node:
            nodes[node.name].append(node)
        return nodes

    def not_allowed(self) -> Iterator[tuple[Place, Any]]:
        """Yield the nodes that are neither allowed nor calls of a function, and their places."""
        registered = require("tensorflow.python.framework.op_def_registry").get
        # A function named like an operation would leave open which one runs.
        called = {name for name in self.functions if registered(name) is None}
        for place, node in self._all():
            allowed = node.op in COMPUTING or node.op in called
            if not allowed or (node.op == "PrintV2" and _stream(node) not in _STREAMS):
                yield place, node

    def reached(self, tensors: Iterable[str], functions: Iterable[str] = ()) -> set[Place]:
        """Return the places that run for some tensors of the main graph, and by functions."""
        waiting: list[Place] = [("", _node(each)) for each in tensors if each]
        waiting += [(each, "") for each in functions if each]
        reached = set[Place]()
        while waiting:
            if (place := waiting.pop()) not in reached:
                reached.add(place)
                waiting += self._required(place)
        return reached

    def _required(self, place: Place) -> Iterator[Place]:
        function, name = place
        nodes = self.functions.get(function) if function else self.nodes.get(name)
        for node in nodes or ():
            yield from ((each, "") for each in _calls(node.attr.values()))
            yield from ((node.op, ""),) if node.op in self.functions else ()
            if not function:
                yield from (("", _node(each)) for each in node.input)

    def _all(self) -> Iterator[tuple[Place, Any]]:
        for node in self.definition.node:
            yield ("", node.name), node
        for name, nodes in self.functions.items():
            yield from (((name, ""), node) for node in nodes)


def _calls(values: Iterable[Any]) -> Iterator[str]:
    """Yield the functions that attributes name, nested ones too."""
    for value in values:
        for function in chain([value.func] if value.HasField("func") else [], value.list.func):
            yield function.name
            yield from _calls(function.attr.values())


def _stream(node: Any) -> str:
    stream: str = node.attr["output_stream"].s.decode(errors="replace")
    return stream or "stderr"


def _node(tensor: str) -> str:
    """Return the name of a tensor's node, or of a control input's."""
    return tensor.removeprefix("^").partition(":")[0]
