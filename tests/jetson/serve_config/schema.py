"""The part of Triton's published schema that serve-config writes.

It is protobuf/model_config.proto of triton-inference-server/common, proto3. Names, numbers and
types are those of that file; it is not vendored. A field that is not in this part fails to parse,
as an unknown field does in the server.
"""

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message -> field -> (number, type, repeated). A type in capitals is a scalar; any other is a
# message or an enum of the file.
MESSAGES = {
    "ModelConfig": {
        "name": (1, "STRING", False),
        "max_batch_size": (4, "INT32", False),
        "input": (5, "ModelInput", True),
        "output": (6, "ModelOutput", True),
        "instance_group": (7, "ModelInstanceGroup", True),
        "default_model_filename": (8, "STRING", False),
        "cc_model_filenames": (9, "ModelConfig.CcModelFilenamesEntry", True),
        "dynamic_batching": (11, "ModelDynamicBatching", False),
        "parameters": (14, "ModelConfig.ParametersEntry", True),
        "backend": (17, "STRING", False),
    },
    "ModelInput": {
        "name": (1, "STRING", False),
        "data_type": (2, "DataType", False),
        "format": (3, "Format", False),
        "dims": (4, "INT64", True),
    },
    "ModelOutput": {
        "name": (1, "STRING", False),
        "data_type": (2, "DataType", False),
        "dims": (3, "INT64", True),
        "label_filename": (4, "STRING", False),
    },
    "ModelInstanceGroup": {
        "name": (1, "STRING", False),
        "count": (2, "INT32", False),
        "kind": (4, "Kind", False),
    },
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, "INT32", True),
        "max_queue_delay_microseconds": (2, "UINT64", False),
    },
    "ModelParameter": {"string_value": (1, "STRING", False)},
}
MAPS = {"CcModelFilenamesEntry": "STRING", "ParametersEntry": "ModelParameter"}
ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0,
        "TYPE_BOOL": 1,
        "TYPE_UINT8": 2,
        "TYPE_INT8": 6,
        "TYPE_FP16": 10,
        "TYPE_FP32": 11,
        "TYPE_STRING": 13,
    },
    "Format": {"FORMAT_NONE": 0, "FORMAT_NHWC": 1, "FORMAT_NCHW": 2},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}


POOL = descriptor_pool.DescriptorPool()


@functools.cache  # one pool, which lives on: protobuf crashes where a class outlives its pool
def model_config():
    """Return the class of ModelConfig."""
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config.proto", package="inference", syntax="proto3"
    )
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            _add(message, field, number=number, kind=kind, repeated=repeated)
    for name, value in MAPS.items():
        entry = next(m for m in file.message_type if m.name == "ModelConfig").nested_type.add(
            name=name
        )
        entry.options.map_entry = True
        _add(entry, "key", number=1, kind="STRING", repeated=False)
        _add(entry, "value", number=2, kind=value, repeated=False)
    POOL.Add(file)
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName("inference.ModelConfig"))


def _add(message, name, *, number, kind, repeated):
    label = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        if repeated
        else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    )
    field = message.field.add(name=name, number=number, label=label)
    if kind.isupper() or kind[-1].isdigit():
        field.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind}")
    else:
        field.type = (
            descriptor_pb2.FieldDescriptorProto.TYPE_ENUM
            if kind in ENUMS
            else descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        )
        field.type_name = f".inference.{kind}"
