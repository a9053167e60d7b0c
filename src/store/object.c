// SPDX-License-Identifier: Apache-2.0
/* object: resources of all kinds in one table. An object's rev is the seq of the event that tells its
 * last change: it grows at every change, never comes back (not even after delete and create), and a
 * watch from rev on misses nothing. */
#include "store/internal.h"

#define COLUMNS "id, kind, project, name, rev, generation, labels, spec, status, created, updated"
#define NEWEST ", (select max(seq) from event)" /* of the same snapshot as the rows */
// clang-format off
#define OBJECT_SQL(Q)                                                                                          \
    Q(get,     "select " COLUMNS " from resource where kind = ?1 and project = ?2 and name = ?3")              \
    Q(list,    "select " COLUMNS NEWEST " from resource where kind = ?1 and project = ?2 and name > ?3"        \
               " order by name limit ?4")                                                                      \
    Q(all,     "select " COLUMNS NEWEST " from resource where kind = ?1 and (project, name) > (?2, ?3)"               \
               " order by project, name limit ?4")                                                             \
    Q(insert,  "insert into resource(kind, project, name, rev, generation, labels, spec, status, created, updated)" \
               " values(?1, ?2, ?3, ?4, 1, ?5, ?6, '{}', ?7, ?7) returning id")                                \
    Q(update,  "update resource set rev = ?2, generation = ?3, labels = ?4, spec = ?5, updated = ?6 where id = ?1") \
    Q(status,  "update resource set rev = ?2, status = ?3, updated = ?4 where id = ?1")                        \
    Q(remove,  "delete from resource where id = ?1")
// clang-format on
SQL_TABLE(object, OBJECT_SQL);

struct reading {
    struct arena *a;
    struct objects *list;
    struct object *one;
};

static struct object object_of(struct arena *a, const struct row *r)
{
    return (struct object){
        .id = row_i64(r, 0),
        .kind = str_dup(a, row_str(r, 1)),
        .project = str_dup(a, row_str(r, 2)),
        .name = str_dup(a, row_str(r, 3)),
        .rev = row_i64(r, 4),
        .generation = row_i64(r, 5),
        .labels = str_dup(a, row_str(r, 6)),
        .spec = str_dup(a, row_str(r, 7)),
        .status = str_dup(a, row_str(r, 8)),
        .created = row_i64(r, 9),
        .updated = row_i64(r, 10),
    };
}

static err on_one(void *arg, const struct row *row)
{
    struct reading *r = arg;
    *r->one = object_of(r->a, row);
    return NULL;
}

static err on_each(void *arg, const struct row *row)
{
    struct reading *r = arg;
    push(r->a, r->list, object_of(r->a, row));
    r->list->seq = row_i64(row, 11);
    return NULL;
}

static err on_id(void *arg, const struct row *row)
{
    *(int64_t *)arg = row_i64(row, 0);
    return NULL;
}

static err missing(err e, struct str kind, struct str project, struct str name)
{
    if (e->code != NOT_FOUND)
        return err_wrap(e, "reading %.*s '%.*s'", STR(kind), STR(name));
    if (project.n == 0)
        return err_new(NOT_FOUND, "there is no %.*s '%.*s'", STR(kind), STR(name));
    return err_new(NOT_FOUND, "there is no %.*s '%.*s' in project '%.*s'", STR(kind), STR(name),
                   STR(project));
}

err object_get(struct store *s, struct arena *a, struct str kind, struct str project, struct str name,
               struct object *out)
{
    struct reading r = { .a = a, .one = out };
    err e = store_one(s, object_sql.get, BIND(B_S(kind), B_S(project), B_S(name)), on_one, &r);
    return e ? missing(e, kind, project, name) : NULL;
}

err object_get_tx(struct tx *tx, struct arena *a, struct str kind, struct str project, struct str name,
                  struct object *out)
{
    struct reading r = { .a = a, .one = out };
    err e = tx_one(tx, object_sql.get, BIND(B_S(kind), B_S(project), B_S(name)), on_one, &r);
    return e ? missing(e, kind, project, name) : NULL;
}

err object_list(struct store *s, struct arena *a, struct str kind, struct str project, struct str after,
                size_t limit, struct objects *out)
{
    struct objects found = { .seq = event_last(s) };
    struct reading r = { .a = a, .list = &found };
    const char *sql = object_sql.list;
    if (project.n == 0) {
        sql = object_sql.all;
        size_t slash = str_find(after, '/');
        if (slash < after.n) {
            project = str_sub(after, 0, slash);
            after = str_sub(after, slash + 1, after.n);
        }
    }
    int64_t n = limit < LIST_MAX ? (int64_t)limit : LIST_MAX;
    TRY_AS(store_query(s, sql, BIND(B_S(kind), B_S(project), B_S(after), B_I(n)), on_each, &r),
           "listing %.*s", STR(kind));
    *out = found;
    return NULL;
}

/* ---- changes ---- */

/* Tells the change; its seq is the new rev. */
static err tell(struct tx *tx, struct str type, struct str who, const struct object *o, int64_t *rev)
{
    struct str data = fmt(tx->a, "{\"rev\":%lld}", (long long)(tx->seq + 1));
    struct event e = {
        .type = type, .kind = o->kind, .project = o->project, .name = o->name, .who = who, .data = data
    };
    return event_append(tx, &e, rev);
}

static err rev_check(const struct object *o, int64_t rev_expected)
{
    if (rev_expected == 0)
        FAIL(CONFLICT, "%.*s '%.*s' exists already", STR(o->kind), STR(o->name));
    if (rev_expected > 0 && rev_expected != o->rev)
        FAIL(CONFLICT, "%.*s '%.*s' has rev %lld, not %lld: it changed since you read it", STR(o->kind),
             STR(o->name), (long long)o->rev, (long long)rev_expected);
    return NULL;
}

static struct str json_or_empty(struct str s)
{
    return s.n ? s : S("{}");
}

static err object_insert(struct tx *tx, struct str who, struct object *o)
{
    TRY(tell(tx, S("created"), who, o, &o->rev));
    o->generation = 1;
    o->status = S("{}");
    o->created = o->updated = tx->now;
    return tx_one(tx, object_sql.insert,
                  BIND(B_S(o->kind), B_S(o->project), B_S(o->name), B_I(o->rev), B_S(o->labels), B_S(o->spec),
                       B_I(tx->now)),
                  on_id, &o->id);
}

static err object_update(struct tx *tx, struct str who, struct object *o, bool spec_changed)
{
    TRY(tell(tx, S("updated"), who, o, &o->rev));
    o->generation += spec_changed;
    o->updated = tx->now;
    return tx_exec(
        tx, object_sql.update,
        BIND(B_I(o->id), B_I(o->rev), B_I(o->generation), B_S(o->labels), B_S(o->spec), B_I(o->updated)),
        NULL);
}

/* What is there (in tx's arena); *found false instead of NOT_FOUND. */
static err object_find(struct tx *tx, const struct object *key, struct object *out, bool *found)
{
    err e = object_get_tx(tx, tx->a, key->kind, key->project, key->name, out);
    *found = !e;
    return e && e->code == NOT_FOUND ? NULL : e;
}

err object_put(struct tx *tx, struct str who, const struct object *in, int64_t rev_expected,
               struct object *out, bool *changed)
{
    struct object o;
    bool found, change = true;
    TRY(object_find(tx, in, &o, &found));
    if (!found && rev_expected > 0)
        return missing(err_new(NOT_FOUND, "gone"), in->kind, in->project, in->name);
    struct str spec = json_or_empty(in->spec), labels = json_or_empty(in->labels);
    if (found) {
        TRY(rev_check(&o, rev_expected));
        bool spec_changed = !str_eq(o.spec, spec);
        change = spec_changed || !str_eq(o.labels, labels);
        o.spec = spec;
        o.labels = labels;
        if (change)
            TRY(object_update(tx, who, &o, spec_changed));
    } else {
        o = (struct object){
            .kind = in->kind, .project = in->project, .name = in->name, .spec = spec, .labels = labels
        };
        TRY(object_insert(tx, who, &o));
    }
    if (out)
        *out = o;
    if (changed)
        *changed = change;
    return NULL;
}

err object_status(struct tx *tx, struct str kind, struct str project, struct str name, int64_t generation,
                  struct str status)
{
    struct object o;
    TRY(object_get_tx(tx, tx->a, kind, project, name, &o));
    if (generation >= 0 && generation != o.generation)
        FAIL(CONFLICT, "%.*s '%.*s' is of generation %lld, not %lld: its spec changed", STR(kind), STR(name),
             (long long)o.generation, (long long)generation);
    status = json_or_empty(status);
    if (str_eq(o.status, status))
        return NULL;
    TRY(tell(tx, S("status"), S("dhow"), &o, &o.rev));
    return tx_exec(tx, object_sql.status, BIND(B_I(o.id), B_I(o.rev), B_S(status), B_I(tx->now)), NULL);
}

err object_delete(struct tx *tx, struct str who, struct str kind, struct str project, struct str name,
                  int64_t rev_expected)
{
    struct object o;
    TRY(object_get_tx(tx, tx->a, kind, project, name, &o));
    if (rev_expected >= 0 && rev_expected != o.rev)
        FAIL(CONFLICT, "%.*s '%.*s' has rev %lld, not %lld: it changed since you read it", STR(kind),
             STR(name), (long long)o.rev, (long long)rev_expected);
    TRY(tell(tx, S("deleted"), who, &o, &o.rev));
    return tx_exec(tx, object_sql.remove, BIND(B_I(o.id)), NULL);
}
