// SPDX-License-Identifier: Apache-2.0
/* Triton's classification extension: the best of an output as text, in place of the scores. */
#include "serve/tensor.h"

struct score {
    double v; /* NaN counts as the least */
    size_t at;
};

/* Of two equal scores the first is the better. */
static bool worse(struct score a, struct score b)
{
    return a.v < b.v || (!(a.v > b.v) && a.at > b.at);
}

/* heap[0] may be in a wrong place: down with it, until none below is worse. */
static void sift(struct score *heap, size_t n)
{
    for (size_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && worse(heap[child + 1], heap[child]))
            child++;
        if (!worse(heap[child], heap[i]))
            return;
        struct score t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

static double score_at(const struct tensor *t, size_t i)
{
    switch (t->type) {
    case TENSOR_F32:
        return (double)((const float *)t->data)[i];
    case TENSOR_F64:
        return ((const double *)t->data)[i];
    case TENSOR_BOOL:
    case TENSOR_U8:
        return ((const uint8_t *)t->data)[i];
    case TENSOR_I8:
        return ((const int8_t *)t->data)[i];
    case TENSOR_U16:
        return ((const uint16_t *)t->data)[i];
    case TENSOR_I16:
        return ((const int16_t *)t->data)[i];
    case TENSOR_U32:
        return ((const uint32_t *)t->data)[i];
    case TENSOR_I32:
        return ((const int32_t *)t->data)[i];
    case TENSOR_U64:
        return (double)((const uint64_t *)t->data)[i];
    default:
        return (double)((const int64_t *)t->data)[i];
    }
}

/* The k best of `n` scores from `from`, best first; best has room for k. */
static void row_best(const struct tensor *t, size_t from, size_t n, size_t k, struct score *best)
{
    for (size_t i = 0; i < k; i++)
        best[i] = (struct score){ -INFINITY, SIZE_MAX };
    for (size_t i = 0; i < n; i++) {
        double v = score_at(t, from + i);
        struct score s = { isnan(v) ? -INFINITY : v, i };
        if (!worse(best[0], s))
            continue;
        best[0] = s;
        sift(best, k);
    }
    for (size_t left = k; left-- > 1;) { /* the worst goes to the end */
        struct score t0 = best[0];
        best[0] = best[left];
        best[left] = t0;
        sift(best, left);
    }
}

/* "value:index", and ":label" where the model says what its columns stand for. */
static struct str class_text(struct arena *a, const struct tensor *t, size_t from, size_t at,
                             const struct strs *labels)
{
    struct buf b = buf_new(a);
    if (t->type == TENSOR_F32 || t->type == TENSOR_F64)
        buf_fmt(&b, "%f", score_at(t, from + at));
    else if (t->type == TENSOR_U64)
        buf_fmt(&b, "%llu", (unsigned long long)((const uint64_t *)t->data)[from + at]);
    else if (t->type == TENSOR_I64)
        write_i64(&b, ((const int64_t *)t->data)[from + at]);
    else
        write_i64(&b, (int64_t)score_at(t, from + at));
    buf_fmt(&b, ":%zu", at);
    if (labels)
        buf_fmt(&b, ":%.*s", STR(labels->v[at]));
    return buf_get(&b);
}

/* One a column, or none. */
static const struct strs *labels_of(const struct session_info *info, size_t slot, int64_t columns)
{
    return info->labels && info->labels[slot].n == (size_t)columns ? &info->labels[slot] : NULL;
}

err classes_of(struct arena *a, const struct session_info *info, const struct tensor *scores, int64_t k,
               struct tensor *out)
{
    struct str name = info->outputs[scores->slot].name;
    int64_t count, rows = scores->rank > 1 ? scores->dims[0] : 1;
    if (scores->type == TENSOR_TEXT || scores->type == TENSOR_F16 || scores->type == TENSOR_BF16)
        FAIL(INVALID, "class result not available for output '%.*s' due to its type %.*s", STR(name),
             STR(tensor_protocol_name(scores->type)));
    if (!tensor_count(scores->dims, scores->rank, CELLS_MAX, &count))
        FAIL(TOO_LARGE, "output '%.*s' has too many elements to classify", STR(name));
    int64_t n = rows ? count / rows : 0;
    const struct strs *labels = labels_of(info, scores->slot, n);
    k = k < n ? k : n;
    struct str *texts = NEW_N(a, struct str, (size_t)(rows * k) + 1);
    struct score *best = NEW_N(a, struct score, (size_t)k + 1);
    for (int64_t r = 0; k && r < rows; r++) {
        row_best(scores, (size_t)(r * n), (size_t)n, (size_t)k, best);
        for (int64_t i = 0; i < k; i++)
            texts[r * k + i] = class_text(a, scores, (size_t)(r * n), best[i].at, labels);
    }
    *out = (struct tensor){ .slot = scores->slot, .type = TENSOR_TEXT, .data = texts };
    out->bytes = (size_t)(rows * k) * sizeof *texts;
    if (scores->rank > 1)
        out->dims[out->rank++] = rows;
    out->dims[out->rank++] = k;
    return NULL;
}
