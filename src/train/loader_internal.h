/* loader, inside.
 * Parts    loader.c (what is asked for, checked; opening), loader_table.c (Parquet and CSV → kept rows), loader_files.c (arrays
 *          and streams), loader_stream.c (columns of tables that are streams), loader_statistics.c (moments, vocabularies, the state as JSON), loader_feed.c (order, windows, the ring). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"
#include "train/array.h"
#include "train/loader.h"

#include <math.h>

enum { PART_NONE = LOADER_PARTS /* skipped */, PART_UNKNOWN, PART_COUNT };
enum { VOCABULARY_MAX = 100000, VALUES_MAX = 16 << 20, CLASSES_MAX = 1 << 20, CHUNK = 2048 };

/* What a column's numbers in the training part look like; missing ones do not count. */
struct spread {
    double n, mean, m2, min, max;
};
void spread_add(struct spread *, const float *x, size_t n); /* in order; NaN and infinities are passed over */

/* Where something was first seen, for errors. */
struct place {
    uint32_t file;
    int64_t row;
};
/* How often each code of a text column comes in the training part, and where it came first. Code 0: missing; then dict's + 1. */
struct codes {
    struct dict dict;
    VEC(int64_t) counts;
    VEC(struct place) first;
    int64_t *table; /* code → id, once statistics are made; room for dict.n + 1 */
    struct strs vocabulary;
};

/* One tensor: how it is kept and what it becomes. */
struct slot {
    const struct loader_input *in;
    struct loader_tensor *tensor; /* of loader->tensors */
    struct gather gather;         /* without parts: those are a store's */
    size_t column;                /* the first of its columns among those scanned */
    size_t kept;                  /* bytes of a kept row */
    struct spread *spreads;       /* n_spreads */
    size_t n_spreads;
    struct codes *codes; /* CATEGORIES, CLASS of text, group: by column */
    bool text;           /* CLASS of text */
    VEC(int64_t) counts; /* CLASS: of the training part, by value */
    int64_t most;        /* CLASS of numbers: the greatest value seen, and where */
    struct place most_at;
};

/* Rows in memory, as kept. */
struct store {
    size_t rows, cap;
    char *data[LOADER_TENSORS_MAX];
    struct gather_part part[LOADER_TENSORS_MAX];
    struct gather gather[LOADER_TENSORS_MAX]; /* of the slot, with parts that are here */
};

/* Rows that are read at once when they are not kept: a row group. */
struct block {
    uint32_t file;
    int64_t row, rows;          /* in its file */
    int64_t first;              /* row of all files */
    int64_t part[LOADER_PARTS]; /* rows of it in each */
};

struct loader {
    struct arena *a;
    struct loader_spec spec;
    struct loader_file *files;
    struct str *sources; /* tables: each file, as SQL reads it */
    struct slot *slots;
    struct loader_tensor *tensors;
    size_t n;
    bool table;
    VEC(struct scan_column) columns; /* that are scanned */
    size_t group, at, known;         /* columns of the split; SIZE_MAX: none */
    VEC(struct block) blocks;
    struct store kept;
    uint32_t *rows[LOADER_PARTS]; /* of kept */
    struct loader_facts facts;
};

/* ---- loader.c ---- */
err parts_check(const struct loader *); /* there are rows, and some to learn from */

/* ---- loader_table.c ---- */
err table_open(struct loader *);
/* The rows of one part of a block, behind those of `to`. */
err table_block(const struct loader *, struct duck *, const struct block *, enum loader_part,
                struct store *to);
err table_duck(const struct loader *, struct arena *a, struct duck **out);
err table_sources(struct loader *, struct duck *); /* each file as SQL reads it */
/* Room for `rows` rows; TOO_LARGE. */
err store_room(const struct loader *, struct store *, size_t rows);
void store_show(const struct loader *, struct store *); /* gathers see its rows */
void store_free(struct store *);

/* ---- loader_files.c ---- */
err files_open(struct loader *);
/* Characters as codes of the slot's dict. */
err text_codes(struct loader *, struct slot *, struct str text, struct array *out);
enum loader_part part_of_row(const struct loader_split *, int64_t row, const struct str *group);

/* ---- loader_stream.c ---- */
/* Whether its tokens are characters; false, too, for a column that is not there, which stream_load() refuses. */
err stream_is_text(struct loader *, const struct loader_file *, struct str column, bool *out);
err stream_load(struct loader *, struct slot *, const struct loader_file *, struct array *out);

/* ---- loader_statistics.c ---- */
err statistics_make(struct loader *); /* from moments and counts, or spec.state → tensors, tables */
/* "row 3 (from 0) of 'a.parquet'" */
struct str place_text(struct arena *a, const struct loader *, struct place);
