"""From a net to ONNX in 32-bit floats, and from that to 8-bit integers."""

import logging
import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch

from foldmark.core.errors import UserError
from foldmark.export.facts import ALIGNER_KEY, INPUT, KEY, OUTPUTS, Facts
from foldmark.export.graph import ExportedAligner, ExportedNet

# Where a net has more convs than this, its first and its last stay in floats: they are few operations, and the most sensitive.
FEW_CONVS = 4
BATCH = 10


def require_packages() -> None:
    """Raise UserError where the packages that exporting takes are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting needs {error.name}, which is not installed; make export installs it (or pip install onnx onnxscript "
            "onnxruntime)."
        ) from None


def to_onnx(net: ExportedNet | ExportedAligner, size: tuple[int, int], outputs: Sequence[str] = OUTPUTS) -> Any:
    """The net as an ONNX model that takes any number of crops of a size (width, height)."""
    # An example of one crop would fix their number at one.
    example = torch.zeros(2, 1, size[1], size[0], dtype=torch.uint8)
    with _quiet():
        program = torch.export.export(net, (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("n", min=1, max=4096)}})
        exported = torch.onnx.export(
            program, dynamo=True, external_data=False, input_names=[INPUT], output_names=list(outputs), verbose=False
        )
    return strip(cast(torch.onnx.ONNXProgram, exported).model_proto)


def strip(model: Any) -> Any:
    """The model without what the exporter notes of the machine: stack traces with paths."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def quantise(model: Any, crops: np.ndarray) -> Any:
    """The model with the weights of its convs as int8, a scale a channel, and their inputs as uint8, whose ranges are those on
    these crops uint8 (n, 1, height, width). All else, which are few operations, stays in floats."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Crops(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = (crops[start : start + BATCH] for start in range(0, len(crops), BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            Crops(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convs[0], convs[-1]] if len(convs) > FEW_CONVS else [],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 7 bits: processors without VNNI add pairs of 8-bit products in 16 bits, which could overflow.
            reduce_range=True,
        )
        return onnx.load(path)


def write_facts(model: Any, facts: Facts, aligner: bytes | None) -> bytes:
    """The model as the bytes of a file that holds these facts, and the model of an aligner."""
    import onnx

    placed = {} if aligner is None else {ALIGNER_KEY: b64encode(aligner).decode()}
    onnx.helper.set_model_props(model, {KEY: facts.model_dump_json(), "terms": facts.terms, **placed})
    model.producer_name, model.producer_version = "foldmark", facts.versions["foldmark"] or ""
    return model.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporters say about their own insides; a wrong model is found by comparing it."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
