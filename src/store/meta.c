// SPDX-License-Identifier: Apache-2.0
/* meta: the list of SQL backends, and what is the same for all: rows and single-row queries. */
#include "store/internal.h"

const struct meta_ops *const meta_backends[] = { &meta_sqlite, NULL };

err meta_run(struct meta_conn *c, struct query *q)
{
    return c->ops->run(c, q);
}

err meta_one(struct meta_conn *c, struct query *q)
{
    q->rows_max = 1;
    TRY(c->ops->run(c, q));
    if (q->rows == 0)
        FAIL(NOT_FOUND, "there is no such row");
    return NULL;
}

int64_t row_i64(const struct row *r, int col)
{
    return r->ops->cell_i64(r, col);
}

double row_f64(const struct row *r, int col)
{
    return r->ops->cell_f64(r, col);
}

struct str row_str(const struct row *r, int col)
{
    return r->ops->cell_str(r, col);
}

bool row_null(const struct row *r, int col)
{
    return r->ops->cell_null(r, col);
}
