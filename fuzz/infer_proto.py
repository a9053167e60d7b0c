# SPDX-License-Identifier: Apache-2.0
"""Messages as Triton's own classes write them, for fuzz/corpus/infer_proto: fuzz/infer_proto.py FOLDER"""

import pathlib
import sys

from tritonclient.grpc import service_pb2 as pb

FOLDER = pathlib.Path(sys.argv[1])


def request(**more):
    return pb.ModelInferRequest(model_name="late", **more)


def tensor(name="features", datatype="FP32", shape=(1, 2), **contents):
    t = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        t.contents.CopyFrom(pb.InferTensorContents(**contents))
    return t


def write(name, message):
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    (FOLDER / name).write_bytes(raw)


FOLDER.mkdir(parents=True, exist_ok=True)
write("raw", request(id="a", inputs=[tensor()], raw_input_contents=[b"\0\0\x80\x3f" * 2]))
write("raw_two", request(inputs=[tensor(), tensor("x", "BYTES", (2,))],
                         raw_input_contents=[b"\0" * 8, b"\1\0\0\0a\0\0\0\0"]))
write("contents", request(inputs=[tensor(fp32_contents=[1, 2])]))
for datatype, field, values in (("BOOL", "bool_contents", [True, False]), ("INT8", "int_contents", [-128, 127]),
                                ("INT64", "int64_contents", [-1, 2**63 - 1]), ("UINT16", "uint_contents", [0, 65535]),
                                ("UINT64", "uint64_contents", [2**64 - 1, 0]), ("FP64", "fp64_contents", [0.5, -1]),
                                ("BYTES", "bytes_contents", [b"", b"\xff"])):
    write("contents_" + datatype.lower(), request(inputs=[tensor("x", datatype, (2,), **{field: values})]))
both = request(inputs=[tensor(fp32_contents=[1, 2])], raw_input_contents=[b"\0" * 8])
write("both", both)
write("raw_missing", request(inputs=[tensor(), tensor("x")], raw_input_contents=[b"\0" * 8]))
write("range", request(inputs=[tensor("x", "INT8", (1,), int_contents=[300])]))
write("shape", request(inputs=[tensor(shape=(2**62, 16))], raw_input_contents=[b""]))
full = request(model_version="1", id="r", inputs=[tensor()], raw_input_contents=[b"\0" * 8])
full.parameters["sequence_id"].int64_param = 7
full.parameters["sequence_start"].bool_param = True
full.parameters["priority"].uint64_param = 1
full.parameters["timeout"].int64_param = 1000
full.parameters["other"].double_param = 0.5
full.outputs.add(name="score").parameters["classification"].int64_param = 3
write("parameters", full)
region = request(inputs=[tensor()])
region.inputs[0].parameters["shared_memory_region"].string_param = "r"
write("shared_memory", region)
write("truncated", both.SerializeToString()[:-3])
write("varint", b"\x0a" + b"\xff" * 11)
write("past_end", b"\x0a\xff\x01a")
write("wire_type", b"\x08\x01")
write("group", b"\x0b\x0c")
write("unpacked", b"\x0a\x04late\x2a\x16\x0a\x01x\x12\x04FP32\x18\x02\x2a\x09\x35\0\0\x80\x3f\x32\x02\0\0")
write("unknown", request(inputs=[tensor(fp32_contents=[1, 2])]).SerializeToString() + b"\xfa\x3f\x03abc\xf8\x3f\x01")
load = pb.RepositoryModelLoadRequest(model_name="late")
load.parameters["config"].string_param = "{}"
load.parameters["file:1/model.onnx"].bytes_param = b"\0"
write("load", load)
log = pb.LogSettingsRequest()
log.settings["log_info"].bool_param = True
log.settings["log_verbose_level"].uint32_param = 1
log.settings["log_file"].string_param = "x"
write("log", log)
trace = pb.TraceSettingRequest(model_name="late")
trace.settings["trace_level"].value.extend(["OFF", "TENSORS"])
write("trace", trace)
write("name", pb.ModelConfigRequest(name="late", version="1"))
