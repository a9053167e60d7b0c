/* serve/proto: the messages of inference.GRPCInferenceService, one table each (proto_table.c). The tables are what
 * reflection tells of the service, and what the messages that are not hot are read and written by, from and to the
 * JSON that REST speaks. ModelInferRequest and -Response are described here too; rpc.c reads and writes them.
 * Flow     bytes --proto_read--> JSON --handler--> JSON --proto_write--> bytes.
 * Memory   what is made lives in the arena, or buffer, that is given.
 * Errors   INVALID: bytes that cannot be read, text that is not UTF-8, a value that does not fit its field. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include "schema/schema.h"

/* As google.protobuf.FieldDescriptorProto.Type counts them. */
enum proto_type {
    PROTO_F64 = 1,
    PROTO_F32 = 2,
    PROTO_I64 = 3,
    PROTO_U64 = 4,
    PROTO_I32 = 5,
    PROTO_BOOL = 8,
    PROTO_TEXT = 9,
    PROTO_MESSAGE = 11,
    PROTO_BYTES = 12,
    PROTO_U32 = 13,
    PROTO_ENUM = 14
};
enum proto_form {
    PROTO_SINGLE,
    PROTO_LIST,
    PROTO_MAP,   /* from text */
    PROTO_CHOICE /* one of the message's choices */
};
struct proto_enum {
    const char *name;
    const char *const *values; /* by number; ended by NULL */
};
struct proto_field {
    const char *name;
    int number;
    enum proto_type type;
    enum proto_form form;
    const struct proto_message *of;
    const struct proto_enum *values;
};
struct proto_message {
    const char *name;                 /* "ModelInferRequest.InferInputTensor" is inside of the other */
    const struct proto_field *fields; /* ended by {0} */
    const char *choice;               /* name of its oneof */
    bool plain; /* as JSON it is the value of its one field, or of its choice, not an object */
};
struct proto_method {
    const char *name, *in, *out;
    bool many_in, many_out; /* streams */
};
/* One file of a package, with at most one service. */
struct proto_file {
    const char *name, *package, *service;
    const struct proto_message *const *messages; /* ended by NULL, as are the others */
    const struct proto_enum *const *enums;
    const struct proto_method *methods;
};
extern const struct proto_file proto_inference;
/* The services that api answers; described here, as it has no tables. Ended by NULL. */
extern const struct proto_file *const proto_standard[];

const struct proto_message *proto_message(const struct proto_file *, struct str name);
const struct proto_method *proto_method(const struct proto_file *, struct str name);
/* Appends the message as a JSON value. A field that is not there is left out, but for lists and maps. */
err proto_read(const struct proto_message *, struct str bytes, struct json *out);
/* Appends the message's fields. Members that it does not have are passed over. */
err proto_write(const struct proto_message *, yyjson_val *v, struct buf *out);
/* Appends v with the default of every field that it leaves out, but for messages: as protobuf's own JSON does. */
void proto_fill(const struct proto_message *, yyjson_val *v, struct json *out);
/* The file as a google.protobuf.FileDescriptorProto. */
struct str proto_descriptor(const struct proto_file *, struct arena *a);
