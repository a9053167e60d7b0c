// SPDX-License-Identifier: Apache-2.0
#include "train/runtime.h"

const struct runtime_ops *const runtime_backends[] = { &runtime_ort, NULL };

err runtime_open(const struct runtime_config *config, struct runtime **out)
{
    return runtime_backends[0]->open(config, out);
}

const char *runtime_version(struct runtime *rt)
{
    return rt->ops->version(rt);
}

void runtime_close(struct runtime *rt)
{
    if (rt)
        rt->ops->close(rt);
}

err session_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                 struct session **out)
{
    return rt->ops->load(rt, bytes, config, out);
}

const struct session_info *session_describe(struct session *s)
{
    return s->ops->describe(s);
}

err session_run(struct session *s, struct arena *a, const struct tensor *in, size_t n_in, struct tensor *out,
                size_t n_out)
{
    return s->ops->run(s, a, in, n_in, out, n_out);
}

void session_unload(struct session *s)
{
    if (s)
        s->ops->unload(s);
}

static bool fits(const struct tensor_spec *spec, size_t rank, size_t columns)
{
    return spec->type == TENSOR_F32 && spec->rank == rank &&
           (rank == 1 || spec->dims[1] < 0 || spec->dims[1] == (int64_t)columns);
}

/* The first output that is a score a row; its slot and rank. */
static err score_output(const struct session_info *info, struct tensor *out)
{
    for (size_t i = 0; i < info->n_outputs; i++)
        for (size_t rank = 1; rank <= 2; rank++)
            if (fits(&info->outputs[i], rank, 1)) {
                *out = (struct tensor){ .slot = i, .type = TENSOR_F32, .rank = rank };
                return NULL;
            }
    FAIL(INVALID, "the model has no float output [N] or [N, 1]");
}

err session_score(struct session *s, const float *x, size_t n, size_t features, size_t batch, float *out)
{
    const struct session_info *info = session_describe(s);
    struct tensor score;
    if (info->n_inputs != 1 || !fits(&info->inputs[0], 2, features))
        FAIL(INVALID, "the model does not take one float input [N, %zu]", features);
    TRY(score_output(info, &score));
    for (size_t at = 0, rows; at < n; at += rows) {
        rows = n - at < (batch ? batch : 4096) ? n - at : batch ? batch : 4096;
        struct tensor in = { .type = TENSOR_F32,
                             .rank = 2,
                             .dims = { (int64_t)rows, (int64_t)features },
                             .data = (void *)(uintptr_t)(x + at * features),
                             .bytes = rows * features * sizeof *x };
        struct tensor to = score;
        to.dims[0] = (int64_t)rows;
        to.dims[1] = 1;
        to.data = out + at;
        to.bytes = rows * sizeof *out;
        TRY(session_run(s, NULL, &in, 1, &to, 1));
    }
    return NULL;
}
