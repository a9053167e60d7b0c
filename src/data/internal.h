/* data, inside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"

/* ---- source.c: files beneath the sources folder ---- */
/* INVALID for an absolute path, "..", or anything else that could leave the folder. */
err source_path_check(struct str path);
/* Opens root/path without following a link anywhere below root. NOT_FOUND names the path. */
err source_open(const char *root, struct str path, int *fd);
struct source_file {
    struct str name, path; /* of the Source; path below root */
    enum source_format format;
    const char *file; /* root/path */
    struct str sha;
    int64_t bytes;
    int64_t dev, ino, mtime_ns;
    struct duck_columns columns;
};
/* Hashes it, and remembers which file it was. */
err source_hash(struct arena *a, const char *root, struct source_file *);
/* CONFLICT if the file is not what was hashed. */
err source_same(struct arena *a, const char *root, const struct source_file *);
/* CREATE VIEW name over the file; its columns. */
err source_view(struct duck *, struct arena *a, struct source_file *);
/* Which source's bytes cannot be read, when a query has failed: an error that names file and column, or e. */
err source_blame(struct duck *, struct arena *a, const struct source_file *, size_t n,
                 const struct dataset_spec *, err e);

/* ---- expect.c: rules → one SELECT of counts ---- */
struct check {
    struct version_check out;
    const struct expect_rule *rule;
    struct strs columns;
    struct str bad;   /* predicate of a row that does not meet it; empty: a rule about the whole */
    struct str value; /* expression of what is measured (or counted, if it is no predicate); may be empty */
};
struct checks {
    struct check *v;
    size_t n, cap;
};
/* The dataset's rules, one column each, and those that every dataset has (id, times not null; id unique). */
err checks_new(struct arena *a, const struct dataset_spec *, const struct duck_columns *, int64_t until,
               struct checks *out);
/* "count(…) AS c0, …" for all of them. */
void checks_sql(struct arena *a, const struct checks *, struct buf *out);
/* The row that came back → ok, failed, value. */
void checks_take(struct checks *, const struct columns *row, int64_t rows);
/* Ids of rows that do not meet a rule. from: a table expression. */
err checks_examples(struct duck *, struct arena *a, struct checks *, struct str id, struct str from);
/* One line each for the log: "ok    not_null_id" … */
struct str check_line(struct arena *a, const struct check *);
/* INVALID for the first rule of severity fail that does not hold. */
err checks_result(struct arena *a, const struct checks *, struct str dataset);

/* ---- statistics.c ---- */
/* "approx_count_distinct(…) AS s0d, …": joins the checks in one pass. */
void statistics_sql(struct arena *a, const struct duck_columns *, struct buf *out);
/* The row that came back → version_column list, roles IS_VALUE. */
void statistics_take(struct arena *a, const struct duck_columns *, const struct columns *row,
                     struct list *out);
/* Quantiles and most frequent texts of a sample of the files. */
err statistics_sample(struct duck *, struct arena *a, const struct strs *paths, int64_t rows,
                      struct list *columns);

/* ---- shared ---- */
struct str time_sql(struct arena *a, struct str column, struct str type); /* microseconds of a time column */

/* GET …/datasetversions/{name}/files/{index}; .self is the store. */
extern const struct route version_file_route;
