/* serve/request_log: what was asked and answered, as versions of a Dataset.
 * Flow     request_log_take (serving thread) --copy--> ring --writer thread, 20 times a second--> rows of text in
 *          DIR/requests/ID.open --rotated by time and size--> DIR/requests/ID --lane: DuckDB--> Parquet blob -->
 *          DatasetVersion.
 * Loss     a ring that is full drops, and counts. kill -9 loses what the writer had not fetched (a twentieth of a
 *          second, if it gets a core): the rows on disk are published at the next start. A disk that is full stops the
 *          log, not the answers: what was taken waits, what comes is counted as not logged.
 * Privacy  personal columns leave the ring as null or as a keyed hash: nothing else of them reaches the disk.
 * Memory   none before the first deployment asks for a log; then RINGS × RING_BYTES, and DuckDB while it publishes. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/infer.h"

enum {
    RINGS = 4,
    RING_BYTES = 4 << 20, /* a power of two */
    RECORD_MAX = 1 << 20, /* of a request's tensors and texts; one that has more is not logged, and counted */
    WRITER_MS = 50,       /* how often rings are emptied */
    PAUSE_MS_MIN = 1000,  /* after a full disk, before it is tried again; each time twice as long, */
    PAUSE_MS_MAX = 60000, /* up to so long */
    BACKLOG_MAX = 64,     /* folders that could not be published; with more the log pauses */
    LOG_MEMORY = 256 << 20, /* DuckDB's limit */
};

/* A column of the file. Those of META come first; then inputs (by rows: a column a feature), then outputs. */
struct log_column {
    struct str name, sql; /* SQL type */
    struct str key;       /* ,"c16": */
    bool output, list, personal;
    size_t slot;           /* of the tensor */
    size_t at;             /* place of the feature in a row, by rows */
    enum tensor_type type; /* of an element */
};

/* Where the requests of one version of one deployment go, as the spec was when it was made. */
struct request_sink {
    struct request_sink *older, *next; /* of the same tally; of the log */
    struct request_log *log;
    struct arena *a;
    struct str project, deployment, version, dataset;
    struct log_column *columns;
    size_t columns_n;
    bool by_rows, batched;  /* batched: the first dimension counts rows */
    int redact;             /* enum redaction */
    struct str personal;    /* names, joined: to see whether the spec has others now */
    _Atomic uint64_t under; /* hashes up to here are logged; 0: none */
    _Atomic int64_t rotate_ms, rotate_bytes, keep_ms;
    atomic_bool gone; /* no request can come any more */
    /* the writer's */
    bool leaves;
    char *dir; /* of the open rows, from malloc; NULL: none */
    int fd;
    int64_t bytes, opened_ns;
    struct buf text; /* rows not written yet, in its own arena */
};

/* A request as it lies in a ring; texts, ids and tensors follow, each from a multiple of 8. */
struct record {
    uint32_t bytes;            /* all of it; first, as in a gap at the ring's end */
    uint32_t gap;              /* nothing here */
    struct request_sink *sink; /* kept by its tally for as long as records of it may come */
    int64_t now, took_ns, input_ns, queue_ns, infer_ns, output_ns;
    size_t rows, inputs, outputs;
    struct str request_id, id, token; /* in a ring .p means nothing */
    bool row_ids, event_at;
    enum err_code error;
    char trace[TRACE_ID_TEXT]; /* trace[0] 0: none */
};
/* The same once it is taken out. */
struct taken {
    struct record r;
    const struct str *row_ids;
    const int64_t *event_at;
    const struct tensor *in, *out;
    uint64_t number; /* of the requests of this process */
};

/* ---- request_rows.c: a record → rows of JSON, redacted ---- */
/* The columns that every log has. */
// clang-format off
#define META(C) /* name, SQL type */                                                                              \
    C(request, VARCHAR)  C(request_id, VARCHAR) C(id, VARCHAR)        C(row_id, VARCHAR)    C(time, TIMESTAMP)    \
    C(event_time, TIMESTAMP) C(deployment, VARCHAR) C(version, VARCHAR) C(token, VARCHAR)   C(trace, VARCHAR)     \
    C(error, VARCHAR)    C(took_us, DOUBLE)     C(input_us, DOUBLE)   C(queue_us, DOUBLE)   C(infer_us, DOUBLE)   \
    C(output_us, DOUBLE)
// clang-format on
#define C(name, sql) META_##name,
enum meta_column { META(C) META_COUNT };
#undef C
/* sink->columns of a model. */
void columns_make(struct request_sink *, const struct model *, const struct request_log_spec *);
/* Appends the rows to sink->text. boot names this process, key is that of the hashes. */
void rows_write(struct request_sink *, const struct taken *, struct str boot, const uint8_t key[32]);

/* ---- request_files.c: rows on disk → DatasetVersion ---- */
/* A new folder with its head; *fd is open on its rows. */
err spill_open(struct serve *, struct request_sink *);
/* sink->text goes to the file. After an error the file's end may be half a row: close it; the text that is left begins
 * with that row. */
err spill_write(struct request_sink *);
/* The rows are whole: spills_publish() may have them. */
err spill_close(struct request_sink *);
/* Folders that were open when the process died are whole now. any: there is something to publish. */
err spills_recover(struct serve *, bool *any);
/* Publishes all that are whole; what cannot be published stays, left says how many. */
err spills_publish(struct serve *, size_t *left);
/* The key of this installation, made at first use. */
err spill_key(struct serve *, uint8_t key[32]);
