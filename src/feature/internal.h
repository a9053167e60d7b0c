/* feature, inside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/feature.h"
#include "feature/fixed.h"

/* ---- define.c: services with all names resolved ---- */
// clang-format off
#define RESOLVED_VIEW(F, O, L, T)                                                             \
    F(T, STR,  name,       0, "Name of the view.")                                            \
    F(T, STR,  dataset,    0, "Its dataset.")                                                 \
    F(T, STRS, keys,       0, "Columns of its entity.")                                       \
    F(T, STR,  id,         0, "The dataset's id.")                                            \
    F(T, STR,  event_time, 0, "The dataset's event time.")                                    \
    F(T, STR,  known_at,   0, "When its rows are known.")                                     \
    F(T, STRS, windows,    0, "Durations.")                                                   \
    F(T, DURATION, ttl,    0, "Oldest row that counts.")                                      \
    L(T, view_aggregate, aggregates, 0, "What is computed.")
SCHEMA(resolved_view, RESOLVED_VIEW);
#define RESOLVED_SERVICE(F, O, L, T)                                                          \
    F(T, STR, service, 0, "Name of the service.")                                             \
    L(T, resolved_view, views, 0, "Its views.")                                               \
    L(T, request_feature, request, 0, "Its request features.")
SCHEMA(resolved_service, RESOLVED_SERVICE);
// clang-format on

/* A view ready to compute with. */
struct aggregate {
    enum aggregate_function function;
    int column; /* of view.columns; -1: none */
};
struct view {
    struct resolved_view def;
    int64_t window_us[WINDOWS_MAX], longest_us, ttl_us;
    size_t windows_n;
    struct aggregate *aggregates;
    size_t aggregates_n;
    struct strs columns;  /* the different columns aggregated */
    struct str *features; /* names: window by window, aggregate by aggregate */
    size_t features_n;
    uint64_t hash; /* of all that decides what a row's values mean */
};
struct service {
    struct resolved_service def;
    struct view *views;
    size_t views_n;
    struct str *features; /* all names of numbers, in order */
    size_t features_n;
    struct strs texts; /* names of texts */
    struct str text;   /* of def: the version's `definition` */
};
/* From the store. */
err service_load(struct store *, struct arena *a, struct str project, struct str name, struct service *out);
err view_load(struct store *, struct arena *a, struct str project, struct str name,
              struct resolved_view *out);
/* What `default` means for an aggregate of the view. INVALID. */
err view_default(const struct feature_view_spec *, struct str aggregate, double *out);
/* From its text. */
err service_parse(struct arena *a, struct str text, struct service *out);
err view_compile(struct arena *a, const struct resolved_view *, struct view *out);
/* Rules about a service that its parts cannot know: different names, not too many. */
err service_compile(struct arena *a, const struct resolved_service *, struct service *out);

/* What a view's row holds: out[features_n], from the sums of each window. */
struct sums {
    int64_t rows;
    const fixed *sum; /* per column */
    const int64_t *n; /* values that are there, per column */
};
static inline void view_window(const struct view *v, size_t window, const struct sums *s, double *out)
{
    for (size_t i = 0; i < v->aggregates_n; i++) {
        const struct aggregate *g = &v->aggregates[i];
        bool of = g->column >= 0;
        out[window * v->aggregates_n + i] = fixed_aggregate(g->function, of, of ? s->sum[g->column] : 0,
                                                            of ? s->n[g->column] : 0, s->rows);
    }
}
static inline int64_t time_minus(int64_t t, int64_t d)
{
    int64_t r;
    return __builtin_sub_overflow(t, d, &r) ? INT64_MIN : r;
}
static inline fixed value_fixed(const struct column *c, size_t row)
{
    if (column_null(c, row))
        return FIXED_NULL;
    return c->type == COL_F64 ? fixed_f64(c->f[row]) : fixed_i64(c->i[row]);
}

/* ---- join.c ---- */
/* A view's columns in a table of events (or labels). */
struct view_columns {
    const struct column *keys[KEYS_MAX];
    const struct column *known, *id; /* id may be NULL */
    const struct column **values;    /* per view.columns */
};
/* INVALID that names what is missing, or of a wrong type. */
err view_bind(struct arena *a, const struct view *, const struct columns *, struct view_columns *out);
err view_bind_keys(const struct view *, const struct columns *, struct view_columns *out);
/* Events of a view in order of key, then known time; rows of no key or time are left out. */
struct sorted {
    uint32_t *row; /* of the table */
    int64_t *known;
    size_t *start; /* of key k; start[keys] is the number of events */
    size_t keys;
};
struct keymap; /* key columns → 0, 1, 2 … */
err view_sort(struct arena *a, const struct view *, const struct columns *, struct view_columns *,
              struct keymap **keys, struct sorted *out);
/* The point-in-time join: out[f][i], features of view f for label i, which is row rows[i] of `labels`, asked about at
 * time->i. Events may be the same table. */
err view_join(const struct view *, const struct columns *events, const struct columns *labels,
              const struct column *time, const uint32_t *rows, size_t n, int threads, double **out);
/* out[i] for all of the rows. */
err request_compute(const struct request_feature *, const struct columns *, const uint32_t *rows, size_t n,
                    double *out);
err request_bind(const struct request_feature *, enum column_type);
bool request_is_text(const struct request_feature *);

/* ---- build.c ---- */
/* Adds "versions": {dataset: {name, spec}} of all datasets the views read to an open spec.json; `asked` is the version of
 * `first` (empty: the newest, as for the others). hash: text that changes with any of them. */
err service_versions_put(struct store *, struct arena *a, struct str project, const struct service *,
                         struct str first, struct str asked, struct str *hash, struct json *out);

/* ---- rings.c: keyed rows ---- */
enum { KEY_PART_BYTES = 33, KEY_BYTES = KEYS_MAX * KEY_PART_BYTES, ROW_HEAD = 8, PREFIX_BYTES = 160 };
/* Key of one row, as bytes: for each part its length and text (over 32 bytes: its SHA-256). False if a part is null. */
bool key_encode(const struct column *const *keys, size_t keys_n, size_t row, uint8_t out[KEY_BYTES],
                size_t *n);
/* What an event is told apart by, beside its key and known time: hash of the id as text. */
uint64_t event_id(const struct column *id, size_t row);
struct online_event {
    int64_t known;
    uint64_t id;
    const fixed *values; /* per view.columns */
};
/* The newest events of keys, in memory as far as room is; what is not there is read from the store again. One
 * writer at a time: apply_begin() takes the lock, apply_end() gives it back. */
struct rings;
struct rings *rings_new(struct kv *, size_t bytes_max);
void rings_free(struct rings *); /* NULL is fine */
size_t rings_bytes(struct rings *);
struct apply;
err apply_begin(struct rings *, struct arena *a, struct apply **out);
/* Events of one key, in any order; view lives until apply_end(). */
err apply_events(struct apply *, struct str project, const struct view *, struct str key,
                 const struct online_event *, size_t n, struct push_result *);
/* Keys and events waiting for apply_flush(). */
size_t apply_waiting(const struct apply *);
/* Writes what was taken up since the last flush, all or none; durable on return. */
err apply_flush(struct apply *);
/* What was not flushed is forgotten. NULL is fine. */
void apply_end(struct apply *);
/* The stored row of a key. False if there is none, or if it was made by another definition of the view. */
bool row_get(struct kv_snap *, const struct view *, struct str prefix, struct str key, double *out,
             int64_t *known);
/* "r|project|view|"; at most PREFIX_BYTES. */
struct str row_prefix(struct arena *a, struct str project, struct str view);

/* ---- online.c ---- */
struct rings *features_rings(struct features *);
struct store *features_store(struct features *);
/* The plan of a service as it is defined now, kept until something changes; feature_plan_free() it. */
err features_plan(struct features *, struct str project, struct str service, struct feature_plan **out);
struct feature_plan *feature_plan_ref(struct feature_plan *);
const struct service *feature_plan_service(const struct feature_plan *);

/* ---- materialize.c: the file between worker and daemon ---- */
struct mat_reader {
    const uint8_t *p, *end;
};
struct mat_view {
    struct str name;
    uint64_t hash;
    uint32_t columns;
    uint64_t keys;
};
struct mat_key {
    struct str key;
    uint32_t events;
};
/* INVALID if the bytes are not such a file, or end too early. */
err mat_open(struct str bytes, struct mat_reader *out, uint32_t *views);
err mat_view_next(struct mat_reader *, struct mat_view *out);
err mat_key_next(struct mat_reader *, struct mat_key *out);
/* values: columns of them. */
err mat_event_next(struct mat_reader *, uint32_t columns, struct online_event *out, fixed *values);
