/* request: a model's inputs as its metadata tells them, and a request made of their values.
 * Flow     inputs_get() asks the server; the caller settles the open sizes; request_make() asks it for each value.
 * Values   come as text, as in a CSV or on a command line, and are checked against their type. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cli/cli.h"

enum { INPUT_RANK_MAX = 8, INPUT_ELEMENTS_MAX = 1 << 23, REQUEST_BYTES_MAX = 64 << 20 };

struct input {
    struct str name, datatype;
    int64_t dims[INPUT_RANK_MAX]; /* -1: open */
    size_t rank, elements;        /* elements: once no size is open */
};
struct inputs {
    struct input *v;
    size_t n;
    yyjson_val *
        entities; /* what a request by key names: [{name, type, key, time, optional}]; NULL: there are none */
};

/* "/v2/models/NAME[/versions/VERSION]"; version may be NULL. */
struct str model_path(struct arena *a, struct str name, const char *version);
err inputs_get(struct cli *, struct str model_path, struct inputs *out);
/* "x FP32[-1,4], mask BOOL[-1]; by key: origin, destination (or nothing)". */
struct str inputs_text(struct arena *a, const struct inputs *);
/* Counts the elements of settled sizes. TOO_LARGE, INVALID if a size is still open. */
err input_settle(struct input *);

/* JSON; tensors as bytes behind it; a ModelInferRequest of gRPC. */
enum request_form { REQUEST_JSON, REQUEST_BINARY, REQUEST_GRPC };
struct request {
    struct str model, version; /* in REQUEST_GRPC, where no path says it; version may be empty */
    const struct input *v;
    size_t n;
    bool binary_out; /* REQUEST_BINARY: so are the outputs */
    err (*value)(void *arg, const struct input *, size_t i, struct str *out); /* element i of an input */
    void *arg;
};
/* *json_n: the length of the JSON that bytes follow; 0 of other forms. INVALID names the value that does not fit. */
err request_make(struct arena *a, const struct request *, enum request_form, struct str *out, size_t *json_n);
