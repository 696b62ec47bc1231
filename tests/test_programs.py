"""SavedModels and frozen graphs that do more than compute: refused before TensorFlow loads them."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_programs
import nets
from conftest import Run
from hostile_programs import HOSTILE, classifier, saved
from kedge_convert.load import graph_safety
from kedge_convert.load.allowed_operations import COMPUTING, FAMILIES
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a path that no conversion may write, in a folder of its own."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere" / "victim"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_program_is_refused_before_it_runs(tmp_path: Path, victim: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    path = make(tmp_path, victim)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        load(SourceRequest(str(path)))
    assert str(caught.value).startswith(f"{path}")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["writes when loaded", "a frozen graph"])
def test_the_command_says_so_in_one_line(
    tmp_path: Path, victim: Path, pictures: Path, kedge: Run, name: str
) -> None:
    path = HOSTILE[name][0](tmp_path, victim)
    (tmp_path / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    words = "--preprocess imagenet --normalisation tf --to tflite:float32"
    files = ("--labels", tmp_path / "labels", "--calibrate", pictures, "--out", tmp_path / "out")
    code, out, err = kedge("convert", path, *words.split(), *files)
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if "WriteFile" in line] == err.splitlines()[-1:]
    assert not victim.exists()
    assert not (tmp_path / "out").exists()


def parsed(path: Path) -> Any:
    message = require("tensorflow.core.protobuf.saved_model_pb2").SavedModel
    return message.FromString((path / "saved_model.pb").read_bytes())


def test_savers_functions_are_for_the_saver_alone(tmp_path: Path) -> None:
    """Every SavedModel writes and reads checkpoints; nothing that is loaded or run may call it."""
    program = parsed(saved(tmp_path))
    graph_safety.refuse_program(program)
    graph = program.meta_graphs[0].graph_def
    savers = [
        function.signature.name
        for function in graph.library.function
        if any(node.op in ("SaveV2", "RestoreV2") for node in function.node_def)
    ]
    assert len(savers) == 2
    for name in savers:
        bound = parsed(tmp_path / "it")
        bound.meta_graphs[0].object_graph_def.nodes[0].function.concrete_functions.append(name)
        called = parsed(tmp_path / "it")
        (caller,) = (
            function
            for function in called.meta_graphs[0].graph_def.library.function
            if "signature_wrapper" in function.signature.name
        )
        caller.node_def.add(name="x", op="PartitionedCall").attr["f"].func.name = name
        for hostile in (bound, called):
            with pytest.raises(UsageError, match=r"SaveV2|RestoreV2"):
                graph_safety.refuse_program(hostile)


def test_two_functions_of_one_name_are_both_looked_at(tmp_path: Path) -> None:
    program = parsed(saved(tmp_path))
    library = program.meta_graphs[0].graph_def.library
    second = library.function.add()
    second.signature.name = library.function[0].signature.name
    second.node_def.add(name="x", op="WriteFile")
    library.function.add().CopyFrom(library.function[0])
    with pytest.raises(UsageError, match="WriteFile"):
        graph_safety.refuse_program(program)


def test_a_function_called_like_an_operation_is_no_disguise(tmp_path: Path) -> None:
    program = parsed(saved(tmp_path))
    graph = program.meta_graphs[0].graph_def
    graph.library.function.add().signature.name = "WriteFile"
    graph.node.add(name="x", op="WriteFile")
    with pytest.raises(UsageError, match="WriteFile"):
        graph_safety.refuse_program(program)


def test_what_is_loaded_is_what_was_looked_at(tmp_path: Path) -> None:
    """Other files of the folder, which TensorFlow may prefer, are not there for it."""
    path = saved(tmp_path)
    (path / "saved_model.cpb").write_bytes(b"another")
    (path / "fingerprint.pb").write_bytes(b"another")
    with graph_safety.checked(path) as folder:
        assert sorted(each.name for each in folder.iterdir()) == ["saved_model.pb", "variables"]
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    found = load(SourceRequest(str(path))).model(images)
    np.testing.assert_allclose(found, classifier(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["DebugIdentity", "CollectiveReduce", "Abort", "My>Op", "a\nb"])
def test_what_is_not_on_the_list_is_refused(op: str) -> None:
    definition = require("tensorflow").compat.v1.GraphDef()
    definition.library.function.add().node_def.add(name="x", op=op)
    with pytest.raises(UsageError, match=re.escape(repr(op))):
        graph_safety.refuse_graph(definition)


def test_what_the_list_holds_keeps_no_state_but_in_memory() -> None:
    """TensorFlow's registry is the judge, of names and of state; who writes it names the reads."""
    registered = require("tensorflow.python.framework.op_def_registry").get
    assert [name for name in COMPUTING if registered(name) is None] == []
    with_state = {name for name in COMPUTING if registered(name).is_stateful}
    for family in ("random numbers", "tables", "variables"):
        with_state -= set(FAMILIES[family].split())
    calls = {"Case", "If", "StatefulPartitionedCall", "While"}
    checks = {"Assert", "CheckNumerics", "CheckNumericsV2", "Print", "PrintV2"}
    assert {
        name
        for name in with_state - calls - checks
        if not name.startswith(("Cudnn", "TensorArray"))
    } == {"Empty", "GuaranteeConst", "RandomCrop", "SampleDistortedBoundingBox"} | {
        "SampleDistortedBoundingBoxV2"
    }
    touching = (
        r"File|Read(?!Variable)|Write|Restore|Save|Debug(?!Gradient)|Send|Recv|PyFunc|Dataset"
    )
    named = {name for name in COMPUTING if re.search(touching, name)}
    assert {name for name in named if not name.startswith("TensorArray")} == {
        "DisableCopyOnRead",
        "RngReadAndSkip",
        "ShardedFilename",
    }


def test_what_people_save_is_loaded(tmp_path: Path) -> None:
    """A table of labels, a print, an assertion and random layers, beside the signature."""
    tf, keras = require("tensorflow"), require("keras")
    keys = tf.constant(["one", "two"])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2])), 0
    )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])  # type: ignore[untyped-decorator]
    def look_up(names: Any) -> Any:
        tf.print("asked for", names)
        tf.debugging.assert_greater(tf.size(names), 0)
        return table.lookup(names)

    path = saved(tmp_path, table=table, look_up=look_up)
    assert load(SourceRequest(str(path))).model.output_shape == (None, 5)
    shutil.rmtree(path)
    image = keras.Input((nets.SIDE, nets.SIDE, 3))
    turned = keras.layers.Dropout(0.5)(keras.layers.RandomRotation(0.1)(image))
    model = keras.Model(image, nets.make("mobile", seed=3)(turned))
    with quiet():
        model.export(path, verbose=False)
    assert load(SourceRequest(str(path))).notes


def test_the_older_form_is_loaded(tmp_path: Path) -> None:
    v1 = require("tensorflow").compat.v1
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    with v1.Graph().as_default(), v1.Session() as session, quiet():
        given = v1.placeholder("float32", (None, 8, 8, 3))
        scale = v1.get_variable("scale", initializer=3.0)
        session.run(v1.global_variables_initializer())
        inputs, outputs = {"images": given}, {"logits": classifier(given) * scale}
        v1.saved_model.simple_save(session, str(tmp_path / "it"), inputs, outputs)
    found = load(SourceRequest(str(tmp_path / "it"))).model(images)
    np.testing.assert_allclose(found, 3 * classifier(images), rtol=1e-4, atol=1e-4)


def older_form(folder: Path) -> Any:
    """Return a SavedModel of TensorFlow 1 that only computes, as a record."""
    program = parsed(hostile_programs.of_tensorflow_1(folder, folder / "victim", main=True))
    (meta,) = program.meta_graphs
    for node in [node for node in meta.graph_def.node if node.op == "WriteFile"]:
        meta.graph_def.node.remove(node)
    for key in [key for key in meta.collection_def if "main_op" in key]:
        del meta.collection_def[key]
    meta.signature_def.pop("__saved_model_init_op", None)
    graph_safety.refuse_program(program)
    return program


def test_a_checkpoint_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """The older form names the file by a tensor; its loader gives that tensor the real path."""
    program = older_form(tmp_path)
    graph = program.meta_graphs[0].graph_def
    (restoring,) = (node for node in graph.node if node.op == "RestoreV2")
    graph.node.add(name="elsewhere", op="Const")
    restoring.input[0] = "elsewhere"
    with pytest.raises(UsageError, match="RestoreV2"):
        graph_safety.refuse_program(program)


@pytest.mark.parametrize("key", ["table_initializer", "main_op", "local_variables"])
def test_collections_may_not_run_the_saver(tmp_path: Path, key: str) -> None:
    program = older_form(tmp_path)
    meta = program.meta_graphs[0]
    save = meta.saver_def.save_tensor_name.partition(":")[0]
    if key == "local_variables":
        module = require("tensorflow.core.framework.variable_pb2")
        variable = module.VariableDef(variable_name="kept:0", initializer_name=save)
        meta.collection_def[key].bytes_list.value.append(variable.SerializeToString())
    else:
        meta.collection_def[key].node_list.value.append(save)
    with pytest.raises(UsageError, match="SaveV2"):
        graph_safety.refuse_program(program)
