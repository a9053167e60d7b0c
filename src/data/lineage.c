// SPDX-License-Identifier: Apache-2.0
#include "data/internal.h"

enum { LINEAGE_MAX = 10000 };

static const char edge_put[] =
    "insert into lineage (project, output, input) values (?1, ?2, ?3) on conflict do nothing";
static const char lineage_up[] =
    "with recursive walk(ref, depth) as (select cast(?2 as text), 0 union select l.input, w.depth + 1 from lineage l "
    "join walk w on l.output = w.ref where l.project = ?1 and w.depth < 64) "
    "select l.input, l.output, min(w.depth) + 1 from lineage l join walk w on l.output = w.ref where l.project = ?1 "
    "group by l.input, l.output order by 3, 2, 1 limit 10000";
static const char lineage_down[] =
    "with recursive walk(ref, depth) as (select cast(?2 as text), 0 union select l.output, w.depth + 1 from lineage l "
    "join walk w on l.input = w.ref where l.project = ?1 and w.depth < 64) "
    "select l.input, l.output, min(w.depth) + 1 from lineage l join walk w on l.input = w.ref where l.project = ?1 "
    "group by l.input, l.output order by 3, 1, 2 limit 10000";

err data_lineage_add(struct tx *tx, struct str project, struct str output, const struct str *inputs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (inputs[i].n)
            TRY(tx_exec(tx, edge_put, BIND(B_S(project), B_S(output), B_S(inputs[i])), NULL));
    return NULL;
}

struct gather {
    struct arena *a;
    struct lineage *out;
};
static err edge_row(void *arg, const struct row *r)
{
    struct gather *g = arg;
    push(g->a, g->out,
         (struct lineage_edge){ .input = str_dup(g->a, row_str(r, 0)),
                                .output = str_dup(g->a, row_str(r, 1)),
                                .depth = row_i64(r, 2) });
    return NULL;
}

err data_lineage(struct store *s, struct arena *a, struct str project, struct str ref, bool up,
                 struct lineage *out)
{
    struct gather g = { a, out };
    *out = (struct lineage){ 0 };
    return store_query(s, up ? lineage_up : lineage_down, BIND(B_S(project), B_S(ref)), edge_row, &g);
}

/* ---- the route ---- */

static void edges_write(struct json *j, const char *key, const struct lineage *l)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < l->n; i++) {
        json_obj(j);
        json_kstr(j, "input", l->v[i].input);
        json_kstr(j, "output", l->v[i].output);
        json_ki64(j, "depth", l->v[i].depth);
        json_obj_end(j);
    }
    json_arr_end(j);
}

static err lineage_get(struct req *r)
{
    struct store *s = (struct store *)r->route->self;
    struct str project = req_param(r, S("project")), ref, kind, rest;
    struct lineage up, down;
    if (!req_query(r, S("ref"), &ref) || str_find(ref, '/') == ref.n)
        return err_hint(err_new(INVALID, "?ref= is missing, or not of the form Kind/name"),
                        "as in ?ref=DatasetVersion/flights.1");
    rest = ref;
    str_cut(&rest, '/', &kind);
    TRY(data_lineage(s, r->a, project, ref, true, &up));
    TRY(data_lineage(s, r->a, project, ref, false, &down));
    struct object o;
    if (!up.n && !down.n)
        TRY(object_get(s, r->a, kind, project, rest, &o));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "ref", ref);
    edges_write(&j, "up", &up);
    edges_write(&j, "down", &down);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

const struct route *data_routes(struct store *s, struct arena *a)
{
    struct route *v = NEW_N(a, struct route, 3);
    v[0] = (struct route){ .method = M_GET,
                           .path = "/api/v1/projects/{project}/lineage",
                           .run = lineage_get,
                           .may = "lineage.read",
                           .self = s,
                           .tag = "data",
                           .since = "0.1",
                           .doc = "What a thing was made from, and what was made from it: ?ref=Kind/name." };
    v[1] = version_file_route;
    v[1].self = s;
    return v;
}
