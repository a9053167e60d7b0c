// SPDX-License-Identifier: Apache-2.0
#include "engine/gather.h"

#include <assert.h>
#include <math.h>

enum { AHEAD = 12, LINE = 64, LINES_MAX = 8 };

static const char *row_at(const struct gather *g, size_t size, size_t row)
{
    const struct gather_part *p = g->parts;
    while (row - p->from >= p->n)
        p++;
    assert(p < g->parts + g->n_parts);
    return p->rows + (row - p->from) * g->stride * size;
}

/* What is read soon is asked for now: rows are far from each other. */
static void fetch_ahead(const char *p, size_t bytes)
{
    size_t lines = bytes / LINE + 1;
    for (size_t i = 0; i < lines && i < LINES_MAX; i++)
        __builtin_prefetch(p + i * LINE, 0, 0);
}

/* Bits, so that no compiler's idea of what floats may be gets in between. */
static inline bool missing(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000) == 0x7f800000;
}

/* ---- F32 ---- */

static void fill_row(const struct gather *g, const float *x, float *y)
{
    if (g->each == 1)
        for (size_t i = 0; i < g->width; i++)
            y[i] = missing(x[i]) ? g->fill[i] : x[i];
    else
        for (size_t i = 0; i < g->width; i++)
            y[i] = missing(x[i]) ? g->fill[i / g->each] : x[i];
}

static void scale_row(const struct gather *g, float *restrict y)
{
    const float *restrict shift = g->shift, *restrict scale = g->scale;
    if (g->each == 1) {
        for (size_t i = 0; i < g->width; i++)
            y[i] = (y[i] - shift[i]) * scale[i];
        return;
    }
    for (size_t c = 0, at = 0; at < g->width; c++) {
        size_t end = at + g->each < g->width ? at + g->each : g->width;
        float m = shift[c], s = scale[c];
        for (; at < end; at++)
            y[at] = (y[at] - m) * s;
    }
}

static void indicator_row(const struct gather *g, const float *x, float *y)
{
    for (size_t i = 0; i < g->width; i++)
        y[i] = missing(x[i]) ? 1.0f : 0.0f;
}

/* Raw numbers of any type as floats. */
static void float_row(enum tensor_type from, size_t n, const char *x, float *restrict y)
{
    switch (from) {
#define CASE(name, type)                            \
    case TENSOR_##name: {                           \
        const type *restrict v = (const type *)(x); \
        for (size_t i = 0; i < n; i++)              \
            y[i] = (float)v[i];                     \
        break;                                      \
    }
        CASE(U8, uint8_t)
        CASE(BOOL, uint8_t)
        CASE(I8, int8_t)
        CASE(U16, uint16_t)
        CASE(I16, int16_t)
        CASE(U32, uint32_t)
        CASE(I32, int32_t)
        CASE(U64, uint64_t)
        CASE(I64, int64_t)
        CASE(F64, double)
#undef CASE
    case TENSOR_F32:
        memcpy(y, x, n * sizeof *y);
        break;
    default:
        assert(false);
    }
}

static void floats_row(const struct gather *g, const char *x, float *y)
{
    if (g->tables) {
        const uint32_t *code = (const uint32_t *)x;
        for (size_t i = 0; i < g->width; i++)
            y[i] = (float)g->tables[i][code[i]];
        return;
    }
    float_row(g->from, g->width, x, y);
    if (g->indicator)
        indicator_row(g, y, y + g->width);
    if (g->fill)
        fill_row(g, y, y);
    if (g->shift)
        scale_row(g, y);
}

/* ---- I64 ---- */

static void whole_row(enum tensor_type from, size_t n, const char *x, int64_t *restrict y)
{
    switch (from) {
#define CASE(name, type)                            \
    case TENSOR_##name: {                           \
        const type *restrict v = (const type *)(x); \
        for (size_t i = 0; i < n; i++)              \
            y[i] = (int64_t)v[i];                   \
        break;                                      \
    }
        CASE(U8, uint8_t)
        CASE(BOOL, uint8_t)
        CASE(I8, int8_t)
        CASE(U16, uint16_t)
        CASE(I16, int16_t)
        CASE(U32, uint32_t)
        CASE(I32, int32_t)
        CASE(U64, uint64_t)
        CASE(I64, int64_t)
#undef CASE
    default:
        assert(false);
    }
}

static void whole_rows(const struct gather *g, const char *x, int64_t *y)
{
    if (g->tables) {
        const uint32_t *code = (const uint32_t *)x;
        for (size_t i = 0; i < g->width; i++)
            y[i] = g->tables[i][code[i]];
    } else {
        whole_row(g->from, g->width, x, y);
    }
}

/* ---- rows ---- */

static void scaled_row(size_t n, const float *restrict x, const float *restrict shift,
                       const float *restrict scale, float *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - shift[i]) * scale[i];
}

/* The common case without detours: floats of one part, all columns there, as they are or normalised one by one. */
static bool rows_plain(const struct gather *g, const uint32_t *order, size_t first, size_t n, float *out)
{
    if (g->from != TENSOR_F32 || g->to != TENSOR_F32 || g->n_parts != 1 || g->fill || g->indicator ||
        (g->shift && g->each != 1))
        return false;
    const float *rows = (const float *)g->parts->rows - g->parts->from * g->stride;
    size_t width = g->width, stride = g->stride;
    for (size_t i = 0; i < n; i++) {
        if (order && i + AHEAD < n)
            fetch_ahead((const char *)(rows + order[i + AHEAD] * stride), width * sizeof *rows);
        const float *x = rows + (order ? order[i] : first + i) * stride;
        if (g->shift)
            scaled_row(width, x, g->shift, g->scale, out + i * width);
        else
            memcpy(out + i * width, x, width * sizeof *x);
    }
    return true;
}

void gather_rows(const struct gather *g, const uint32_t *order, size_t first, size_t n, void *out)
{
    size_t size = tensor_size(g->from), bytes = g->width * size, wide = gather_width(g);
    if (rows_plain(g, order, first, n, out))
        return;
    for (size_t i = 0; i < n; i++) {
        if (order && i + AHEAD < n)
            fetch_ahead(row_at(g, size, order[i + AHEAD]), bytes);
        const char *x = row_at(g, size, order ? order[i] : first + i);
        if (g->to == TENSOR_F32)
            floats_row(g, x, (float *)out + i * wide);
        else
            whole_rows(g, x, (int64_t *)out + i * wide);
    }
}
