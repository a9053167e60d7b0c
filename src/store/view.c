// SPDX-License-Identifier: Apache-2.0
/* view: resources as SQL sees them, one view per kind. */
#include "schema/schema.h"
#include "store/internal.h"

err store_view(struct store *s, struct str plural, struct str kind, const struct schema *spec)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    buf_fmt(
        &b,
        "drop view if exists view_%.*s;\ncreate view view_%.*s as select project, name, rev, created, updated, ",
        STR(plural), STR(plural));
    size_t before = b.n;
    schema_sql_columns(spec, SQL_SQLITE, S("spec"), &b);
    buf_fmt(&b, "%s status from resource where kind = '%.*s';\n", b.n > before ? "," : "", STR(kind));
    return store_ddl(s, "views", str_z(a, buf_get(&b)));
}
