/* fuzz/infer_proto: messages of gRPC clients. What is read of a prediction must be as long as its shape says and
 * stand where numbers may stand; what is read of any other message must be JSON. */
// SPDX-License-Identifier: Apache-2.0
#include "serve/ext.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void input_check(const struct named *in)
{
    size_t size = in->t.type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(in->t.type);
    int64_t n;
    if (!tensor_count(in->t.dims, in->t.rank, INT32_MAX, &n) || in->t.bytes != (size_t)n * size)
        abort();
    if ((uintptr_t)in->t.data % (in->t.type == TENSOR_TEXT ? _Alignof(struct str) : size))
        abort();
    for (int64_t i = 0; in->t.type == TENSOR_TEXT && i < n; i++) {
        struct str s = ((struct str *)in->t.data)[i];
        for (size_t k = 0; k < s.n; k++)
            (void)*(volatile const char *)(s.p + k);
    }
}

static void predict_try(struct arena *a, struct str bytes)
{
    struct infer c = { .a = a };
    bool final;
    if (rpc_read(&c, bytes, &final))
        return;
    if (c.inputs_n > TENSORS_MAX || c.asked_n > TENSORS_MAX)
        abort();
    for (size_t i = 0; i < c.inputs_n; i++)
        input_check(&c.inputs[i]);
}

static void message_try(struct arena *a, const struct proto_message *m, struct str bytes)
{
    struct json j = json_new(a);
    struct buf b = buf_new(a);
    yyjson_val *v;
    if (proto_read(m, bytes, &j))
        return;
    yyjson_doc *d = yyjson_read(json_get(&j).p, json_get(&j).n, 0);
    if (!d)
        abort();
    yyjson_doc_free(d);
    err e = json_parse(a, json_get(&j), &v);
    if (e && !str_ends(e->text,
                       S("is given twice in one object"))) /* a map's key may be; that is refused as JSON's */
        abort();
    if (e)
        return;
    if (!m->plain)
        (void)proto_write(m, v, &b); /* not all of it can be: JSON has no bytes */
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct str text = { (const char *)bytes, n };
    auto_arena struct arena *a = arena_new(64 << 20);
    predict_try(a, text);
    for (size_t i = 0; proto_inference.messages[i]; i++)
        message_try(a, proto_inference.messages[i], text);
    err_reset();
    return 0;
}
