/* columns: a table in memory, column by column: what Parquet is read into and written from, and what a
 * push or a request of many rows is.
 * Owns     nothing; everything lives in the arena it was made in.
 * Types    whole numbers, truth values and times (microseconds) are int64_t; text is a code into a
 *          dictionary of its own column.
 * Nulls    a byte per row, NULL when there are none; the value of a null is 0, NaN or code 0.
 *          columns_read() and the readers make a NaN of the outside a null.
 * Errors   INVALID with the path of the value ("rows.delay[3]"), TOO_LARGE over a limit. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include <yyjson.h>

enum column_type { COL_I64, COL_F64, COL_BOOL, COL_TIME, COL_STR };
extern const char *const column_type_names[]; /* "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "VARCHAR" */

struct column {
    struct str name;
    enum column_type type;
    int64_t *i;     /* I64, BOOL, TIME */
    double *f;      /* F64 */
    uint32_t *code; /* STR: index into dict */
    struct str *dict;
    size_t dict_n;
    uint8_t *null; /* NULL: none */
};
struct columns {
    struct column *v;
    size_t n, cap, rows;
};

/* NULL if there is none of that name. */
const struct column *columns_find(const struct columns *, struct str name);
/* INVALID that names the nearest column there is. */
err columns_need(const struct columns *, struct str name, const struct column **out);
/* A new column with room for rows values, appended; the pointer is good until the next one. */
struct column *columns_add(struct arena *a, struct columns *, struct str name, enum column_type type);

static inline bool column_null(const struct column *c, size_t row)
{
    return c->null && c->null[row];
}
static inline struct str column_str(const struct column *c, size_t row)
{
    return c->dict[c->code[row]];
}
/* A number of any type but text; NaN for null. */
static inline double column_f64(const struct column *c, size_t row)
{
    if (column_null(c, row))
        return __builtin_nan("");
    return c->type == COL_F64 ? c->f[row] : (double)c->i[row];
}
/* The value as text, whatever its type ("" for null); numbers in decimal, times in microseconds. */
struct str column_text(struct arena *a, const struct column *c, size_t row);

/* The type that values of an SQL type are read as; false for those that are not (BLOB, lists, …). */
bool column_type_of(struct str sql, enum column_type *out);
/* Lists and arrays of numbers, "FLOAT[]", "UTINYINT[784]": for who trains from them; nobody else reads them. */
bool column_is_list(struct str sql);
/* "FLOAT[784]" → "FLOAT"; empty if it is no list. */
struct str column_item(struct str sql);

/* ---- JSON ---- */
struct column_def {
    struct str name;
    enum column_type type;
};
enum { COLUMNS_ROWS_MAX = 10000, COLUMNS_MAX = 2000 };
enum columns_flag {
    COLUMNS_IGNORE =
        1 << 0,           /* columns that are not in defs are skipped; else INVALID with the nearest name */
    COLUMNS_ALL = 1 << 1, /* each of defs must be there */
};
/* {"origin":["ATL",…],"ts":["2001-05-01T10:00:00",…]} → columns in the order of defs that are there. All
 * have the same length, at most rows_max. Times are text or microseconds; null is null. path: "rows". */
err columns_read(struct arena *a, struct str path, yyjson_val *in, const struct column_def *defs, size_t n,
                 size_t rows_max, unsigned flags, struct columns *out);
/* The reverse. */
void columns_write(struct json *j, const struct columns *);
