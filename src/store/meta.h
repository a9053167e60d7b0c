/* meta: the SQL database under the store, behind one vtable; one file per backend (sqlite.c).
 * A connection is used by one thread at a time. The store opens one for writing (its writer thread)
 * and a few for reading. Statements are written with ?1, ?2 …; what differs between dialects (tables,
 * pragmas, transactions) is inside the backend. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "store/store.h"

#define META_VERSION 1 /* of the tables; another one is refused */

struct meta_ops;
struct meta_conn {
    const struct meta_ops *ops; /* first member of every backend's connection */
};

struct row {
    const struct meta_ops *ops;
    void *at; /* the backend's */
};

struct query {
    const char *sql;
    const struct bind *bind;
    size_t bind_n;
    size_t rows_max;                                 /* 0: all */
    err (*on_row)(void *arg, const struct row *row); /* may be NULL: rows are passed over */
    void *arg;
    size_t rows;     /* out: rows seen */
    int64_t changes; /* out: rows inserted, updated, deleted */
};

struct meta_ops {
    const char *name;
    /* must; write: makes the tables of a new database. INVALID if it has another version */
    err (*open)(struct str where, bool write, struct meta_conn **out);
    /* must; NULL is fine */
    void (*close)(struct meta_conn *);
    /* must; one statement. CONFLICT (unique), FULL, INVALID (another constraint), INTERNAL */
    err (*run)(struct meta_conn *, struct query *);
    /* must; statements separated by ";", inside a transaction */
    err (*script)(struct meta_conn *, const char *sql);
    /* must; takes the right to write */
    err (*begin)(struct meta_conn *);
    /* must; durable when it returns NULL, nothing stays otherwise (rollback() follows) */
    err (*commit)(struct meta_conn *);
    /* must; fine without a transaction */
    void (*rollback)(struct meta_conn *);
    /* must; a savepoint: mark() it, then keep() or undo() what came after */
    err (*mark)(struct meta_conn *);
    err (*keep)(struct meta_conn *);
    err (*undo)(struct meta_conn *);
    /* must; false once an error has ended the whole transaction */
    bool (*in_tx)(struct meta_conn *);
    /* may be NULL; upkeep between transactions, after the writers were answered */
    void (*tidy)(struct meta_conn *);
    /* must; looks for damage, one line each: none is good */
    err (*check)(struct meta_conn *, struct arena *a, struct strs *faults);
    /* must; the cells of the row that is stepped to */
    int64_t (*cell_i64)(const struct row *, int col);
    double (*cell_f64)(const struct row *, int col);
    struct str (*cell_str)(const struct row *, int col);
    bool (*cell_null)(const struct row *, int col);
};

extern const struct meta_ops meta_sqlite;
/* Every backend that is built in, NULL at the end. */
extern const struct meta_ops *const meta_backends[];
