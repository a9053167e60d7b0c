/* duck: DuckDB in this process: SQL over listed files, Parquet in and out.
 * Flow     duck_open --duck_run / duck_read / duck_load--> columns;  columns --parquet_save--> a file.
 * Owns     an in-memory database; it ends with the arena that it was opened in. The library is found at run
 *          time: $DHOW_DUCKDB_LIB, lib/ beside the program, ../.deps/lib from there and up to three folders
 *          above, then the loader's path.
 * Safety   SQL reaches the files listed in its configuration and no others; no extension is loaded or
 *          installed, settings are locked.
 * Threads  one caller per struct duck; it runs its own workers.
 * Errors   INVALID (the SQL, a damaged file: DuckDB's own words), UNAVAILABLE (no library), LIMIT (memory),
 *          FULL, CANCELLED (duck_interrupt), UNSUPPORTED (a column type that columns.h lacks). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/columns.h"

struct duck;
struct duck_config {
    int threads;          /* 0: cpu_count() */
    int64_t memory_bytes; /* 0: 2 GiB; beyond, it spills into tmp_dir */
    const char *tmp_dir;  /* NULL: no spilling */
    struct strs files;    /* all that SQL may open, to read or to write; absolute paths */
    bool (*stop)(void *); /* asked ten times a second while a statement runs: true ends it; may be NULL */
    void *stop_arg;
};
err duck_open(struct arena *a, const struct duck_config *, struct duck **out);
/* Path and version of the library, for `dhow doctor`. */
err duck_library(struct arena *a, struct str *path, struct str *version);

/* One statement without a result. */
__attribute__((format(printf, 2, 3))) err duck_run(struct duck *, const char *f, ...);
/* INVALID unless sql is one SELECT (WITH … SELECT) and nothing else. */
err duck_check_select(struct duck *, struct str sql);
/* Names and SQL types of what a SELECT gives; it is prepared, not run. */
struct duck_column {
    struct str name, type;
};
struct duck_columns {
    struct duck_column *v;
    size_t n, cap;
};
err duck_describe(struct duck *, struct arena *a, struct str sql, struct duck_columns *out);
/* Whole result in memory: for what is known to fit. */
err duck_load(struct duck *, struct arena *a, struct str sql, struct columns *out);
/* A result chunk by chunk, in order. */
struct reader;
err duck_read(struct duck *, struct arena *a, struct str sql, struct reader **out);
/* The next rows (at most a few thousand), valid until the next call; chunk->rows is 0 at the end. */
err reader_next(struct reader *, struct columns *chunk);
/* Vectors as DuckDB has them, for who decodes into a place of his own: numbers in their own width, lists. */
enum scan_want { SCAN_NUMBER, SCAN_NUMBERS /* lists and arrays of numbers */, SCAN_TEXT, SCAN_TIME };
struct scan_column {
    struct str name;
    enum scan_want want;
};
struct vector {
    char type; /* 'f' float, 'd' double, 'i' int32_t, 'l' int64_t (times: µs), 't' text (vector_text) */
    const void *data;      /* of the rows; SCAN_NUMBERS: of the items */
    const uint64_t *valid; /* a bit for each row; NULL: all are */
    const struct vector_list {
        uint64_t at, n;
    } * lists; /* SCAN_NUMBERS: the items of each row */
    const uint64_t *item_valid;
};
struct scan;
/* The columns of `from` (what may follow FROM), in order of rows. INVALID, naming the column, if it is not there or of another type. */
err duck_scan(struct duck *, struct arena *a, struct str from, const struct scan_column *, size_t n,
              struct scan **out);
/* The next rows (at most 2,048), valid until the next call; 0 at the end. */
err scan_next(struct scan *, const struct vector **out, size_t *rows);
void scan_close(struct scan *); /* else the arena does */
struct str vector_text(const struct vector *, size_t row);
static inline bool vector_null(const uint64_t *valid, size_t i)
{
    return valid && !(valid[i / 64] >> (i % 64) & 1);
}
/* Ends what runs now; any thread. */
void duck_interrupt(struct duck *);
/* Share of the running statement that is done, 0 to 1; -1 unknown. Any thread. */
double duck_progress(struct duck *);
/* "read_parquet(['…', …])": a table of the files' rows, one file after the other. */
struct str sql_parquet(struct arena *a, const struct strs *paths);
/* 'it''s' and "a ""name""". */
struct str sql_text(struct arena *a, struct str s);
struct str sql_name(struct arena *a, struct str s);

/* ---- Parquet ---- */
/* Columns `names` (all if n is 0) of the files one after the other; an error names file and column. */
err parquet_load(struct arena *a, const struct strs *paths, const struct str *names, size_t n,
                 struct columns *out);
/* Rows from ≤ i < to of the columns as a zstd Parquet file, in order. */
err parquet_save(struct arena *a, const char *path, const struct columns *, size_t from, size_t to);
