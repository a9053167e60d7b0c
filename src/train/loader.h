/* loader: tables, images and texts in files → batches that the engine reads in place.
 * Flow     loader_spec --loader_open (one pass over the files: checks, split, statistics)--> loader
 *          --feed_open (one part: train, valid or test)--> feed --feed_next--> batch, batch, …
 *          feed_state --> JSON --> feed_seek: the batches go on bit for bit.
 * Files    Parquet, CSV (both by DuckDB), or arrays: IDX (also .gz), NumPy's .npy, plain text as a stream of characters.
 * Memory   rows that fit into memory_max are decoded once and kept; else they are read again in each epoch, in windows of
 *          row groups, two windows at a time. Rows are kept as they are in the file; a batch is made of them when it is
 *          gathered: missing → fill, (x − shift) × scale, text → id.
 * Order    a function of (seed, epoch) alone. Kept rows: a full permutation (Fisher–Yates). Windows: row groups in random
 *          order, cut into windows of at most window_rows, each permuted. With a ROLE_GROUP input the rows of a group follow
 *          each other (those of its window), so that a loss of pairs finds them in one batch.
 * Owns     loader and feed: their memory and threads, until the arena given ends.
 * Threads  loader_open: one. Then many feeds of one loader at once, each with one caller. feed_gather: any number.
 * Errors   INVALID that names column, file and row (counted from 0): a missing column, a wrong type, a value that is missing,
 *          NaN or infinite, a label out of range, no rows; TOO_LARGE; UNAVAILABLE (no DuckDB). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

enum loader_part { LOADER_TRAIN, LOADER_VALID, LOADER_TEST, LOADER_PARTS };
extern const struct str loader_part_names[LOADER_PARTS]; /* "train", "valid", "test" */

/* ---- what is asked for ---- */
enum loader_role { ROLE_INPUT, ROLE_LABEL, ROLE_WEIGHT, ROLE_GROUP };
enum loader_kind {
    KIND_NUMBERS, /* k columns of numbers → F32 [k] */
    KIND_CATEGORIES, /* k columns of text or whole numbers → I64 [k]: ids for embeddings. Id 0: not in the vocabulary,
                        1: missing (null, empty), 2 …: the vocabulary of the training part, the most frequent first */
    KIND_ARRAY, /* one column of arrays of a fixed size (lists, images) → F32 or, with ids, I64 [shape] */
    KIND_CLASS, /* one column of whole numbers 0 … C−1, or of text (C names in order) → I64 [], a label */
    KIND_TOKENS, /* a stream of ids or characters, cut into windows → I64 [length]; as label: one place further on. Of a table:
                    a column, row after row */
};
enum loader_norm {
    NORM_NONE,
    NORM_STANDARD, /* (x − mean) / standard deviation, of the training part; a constant column becomes 0 */
    NORM_MINMAX,   /* (x − min) / (max − min), the same */
    NORM_IMAGE,    /* x / 255 */
};
enum loader_missing { /* null, NaN; an infinity is an error, unless its row is skipped */
                      MISSING_ERROR,
                      MISSING_MEAN, /* of the training part */
                      MISSING_FILL, /* the number `fill` */
                      MISSING_SKIP, /* the row is in no part */
};
struct loader_input {
    struct str name; /* of the batch's tensor; unique */
    enum loader_role role;
    enum loader_kind kind;
    struct strs columns; /* none, for NUMBERS: all columns of numbers that nobody else names */
    bool or_none; /* where there are no such columns it is no input of the loader; else that is an error */
    enum loader_norm normalise;  /* NUMBERS, ARRAY */
    enum loader_missing missing; /* NUMBERS of tables; CLASS: ERROR or SKIP */
    double fill;
    bool floats;    /* CLASS: as F32, for losses of one output (0 or 1) */
    bool indicator; /* NUMBERS: k more columns, 1 where a value was missing */
    bool ids;       /* ARRAY: whole numbers → I64 */
    int rank;       /* ARRAY: shape of a row, 0: as in the file; [3, 32, 32] */
    int64_t shape[4];
    int64_t classes; /* CLASS, ARRAY with ids: labels must be below; 0: as many as there are in training */
    int64_t vocabulary_max; /* CATEGORIES: at most so many of the most frequent; 0: 100,000 */
    int64_t count_min;      /* CATEGORIES: rarer ones are not in the vocabulary; 0: 1 */
    int64_t length;         /* TOKENS: ids in a window */
};

enum loader_format { FILE_AUTO, FILE_PARQUET, FILE_CSV, FILE_IDX, FILE_NPY, FILE_TEXT };
struct loader_file {
    struct str path;
    enum loader_format format; /* AUTO: by its first bytes, or by its name (.csv, .tsv, .txt) */
    enum loader_part part;     /* VALID, TEST: all of its rows; TRAIN: what the split says */
    struct str
        column; /* arrays: the name of the column that it is. Files of one column follow each other, and each column's
                                  must have the rows of the first column's files, one by one */
};

/* How the rows of TRAIN files are split. By time if `at` is given: as train.h says (held out: split ≤ at < until; learned
 * from: at < split and known < split; others are in no part). Else by share: a row's place is a hash of (seed, number of the
 * row, or the value of column `group`, whose rows stay together). Streams: the last shares of the stream. */
struct loader_split {
    double valid, test; /* shares, 0.1 */
    uint64_t seed;
    struct str group;
    struct str at, known;         /* columns: event time; when the label became known (none: known at once) */
    int64_t holdout_ms, until_us; /* until 0: just after the newest row */
};

struct loader_spec {
    const struct loader_file *files;
    size_t n_files;
    const struct loader_input *inputs;
    size_t n_inputs;
    struct strs aside; /* columns that are no inputs unless an input names them: ids of rows */
    struct loader_split split;
    int64_t memory_max;  /* bytes of kept rows, or of both windows; 0: 2 GiB */
    int64_t window_rows; /* at most, if rows are not kept; 0: what memory_max gives */
    int threads;         /* for decoding; 0: cpu_count() */
    struct str
        state; /* what loader_state() of an earlier loader said: its statistics and vocabularies are taken, none
                            are made (evaluation, going on with a training); empty: of this data's training part */
    bool (*stop)(void *); /* asked while files are read: true ends it (CANCELLED); may be NULL */
    void *stop_arg;
};

/* ---- what there is ---- */
struct loader;
err loader_open(struct arena *a, const struct loader_spec *, struct loader **out);

/* One tensor of each batch, in the order of spec.inputs. */
struct loader_tensor {
    struct str name;
    enum loader_role role;
    enum loader_kind kind;
    enum tensor_type type; /* F32 or I64 */
    int rank; /* of one row; the batch's tensor has the rows before it. Labels, weights and groups of one column: 0 */
    int64_t shape[4];
    int64_t n; /* elements of a row */
    struct strs columns;
    /* F32: element i is (x − shift[i / each]) × scale[i / each], missing x being fill[i / each]; then, with indicators, as
     * many elements that say what was missing. shift, scale, fill: NULL if there is nothing to do. */
    const float *shift, *scale, *fill;
    int64_t each;
    bool indicator;
    const float *mean; /* labels that are numbers: of each of a row's, in the training part; else NULL */
    float deviation;   /* and what they all deviate from it (root of the mean square); 1 if they do not */
    const int64_t
        *sizes; /* CATEGORIES: by column, ids that there are (vocabulary + 2): rows of the embedding */
    const struct strs
        *vocabulary;         /* CATEGORIES: by column, in order of id from 2; text TOKENS: [0], from id 1 */
    const bool *numeric;     /* CATEGORIES: by column, whether it has numbers in the files */
    int64_t classes;         /* CLASS: C; TOKENS: ids that there are; ARRAY with ids: ids that there are */
    const int64_t *counts;   /* CLASS: rows of each class in the training part */
    struct strs class_names; /* CLASS of text; else none */
};
size_t loader_tensors(const struct loader *, const struct loader_tensor **out);
/* NULL if there is none of that role (the first) or name. */
const struct loader_tensor *loader_find(const struct loader *, struct str name);
const struct loader_tensor *loader_role(const struct loader *, enum loader_role);

struct loader_facts {
    int64_t rows[LOADER_PARTS];
    int64_t skipped; /* by MISSING_SKIP */
    int64_t unknown; /* older than the split by time, but the label came later; or not before `until` */
    int64_t from, split, until; /* of a split by time, µs */
    int64_t bytes;              /* of the kept rows, or of both windows */
    bool kept;
    double seconds; /* that loader_open took */
    struct strs
        left; /* columns that nobody names, and that are no numbers: an input without columns leaves them out */
};
struct loader_facts loader_facts(const struct loader *);
/* Statistics and vocabularies as JSON: with it another loader gives the same numbers for the same rows; an exported model
 * needs it, too. */
struct str loader_state(const struct loader *, struct arena *a);
/* Raw numbers (before filling and normalising; NaN: missing) of up to rows_max rows of a part, evenly chosen, row-major; for
 * baselines and for checking an exported model. NUMBERS, and CATEGORIES that are numbers (others are NaN). */
err loader_raw(const struct loader *, struct arena *a, enum loader_part, size_t tensor, size_t rows_max,
               float **out, size_t *rows);
/* The same into memory of the caller's; rows: no more than the part has. */
err loader_raw_into(const struct loader *, enum loader_part, size_t tensor, size_t rows, float *out);

/* ---- batches ---- */
enum { LOADER_TENSORS_MAX = 32 };
struct feed_batch {
    const void *data[LOADER_TENSORS_MAX]; /* by tensor, 64-aligned, rows × n; good until the next call */
    int64_t rows;                         /* 0: the end (of an evaluation) */
    int64_t epoch;                        /* from 0 */
    int64_t step;                         /* of the epoch, from 0 */
    bool last;                            /* of its epoch */
    int64_t waited_ns;
};
struct feed_options {
    enum loader_part part;
    int64_t rows; /* of a batch */
    bool shuffle;
    bool
        once; /* evaluation: one epoch, the last batch may be short. Else epoch follows epoch, and what would not fill a
                       batch is left out of its epoch (another few in each epoch) */
    uint64_t seed;
    int depth; /* batches made ahead by a thread; 0: about 4 MB, 4 to 64; −1: none, feed_next makes them */
};
struct feed;
/* INVALID if the part has no rows, or fewer than one batch (without once). */
err feed_open(struct loader *, struct arena *a, const struct feed_options *, struct feed **out);
/* Batches of an epoch. */
int64_t feed_steps(const struct feed *);
/* The next batch. Waits only if none is ready. The former one is given back. */
err feed_next(struct feed *, struct feed_batch *out);
/* Where the next batch stands, {"epoch":2,"step":117, …}: what resuming needs. */
struct str feed_state(const struct feed *, struct arena *a);
/* Goes there. INVALID if it is the state of other data, another batch size or another seed. */
err feed_seek(struct feed *, struct str state);
/* From the start again, for the next evaluation. */
err feed_rewind(struct feed *);

/* Without a thread and without a copy in between: rows [from, to) of the batch (epoch, step) straight into out[tensor], each
 * at row 0; ranks may gather their own rows at once. Only for kept rows, after feed_epoch(epoch). */
bool feed_can_gather(const struct feed *);
void feed_epoch(struct feed *, int64_t epoch);
void feed_gather(const struct feed *, int64_t step, int64_t from, int64_t to, void *const *out);

struct feed_stats {
    int64_t batches, rows;
    double waited; /* seconds in feed_next without a batch ready */
    double passed; /* seconds since the first feed_next */
    double filled; /* seconds that making batches took, in its thread */
};
struct feed_stats feed_stats(const struct feed *);
