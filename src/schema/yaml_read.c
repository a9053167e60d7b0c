/* yaml_read: YAML → JSON text, straight from libyaml's events; an alias is a copy of the JSON text its
 * anchor gave, counted before it is made. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include "schema/yaml.h"
#include <stdlib.h>
#include <yaml.h>

enum { ALIAS_NODES_MAX = 10000, ANCHORS_MAX = 10000, OUT_MAX = 64 << 20 };

struct key {
    struct str text;
    yaml_mark_t at;
};
struct anchor {
    struct str name;
    size_t start, n; /* its JSON in yaml.j; n 0: still open */
    size_t nodes;
    int height; /* levels of containers in it */
};
struct frame { /* an open mapping or list */
    bool map, wants_key;
    size_t keys_from; /* its keys in yaml.keys */
    size_t start;     /* its text in yaml.j */
    size_t nodes_from;
    long anchor; /* index; -1: none */
    int height;
};
struct yaml {
    yaml_parser_t parser;
    struct arena *t; /* scratch of one document */
    struct json j;
    struct frame frames[DEPTH_MAX];
    int depth;
    VEC(struct key) keys;
    VEC(struct anchor) anchors;
    size_t nodes, alias_nodes;
};

__attribute__((format(printf, 2, 3))) static err at_mark(yaml_mark_t m, const char *f, ...)
{
    auto_arena struct arena *t = arena_new(0);
    va_list ap;
    va_start(ap, f);
    struct str text = vfmt(t, f, ap);
    va_end(ap);
    FAIL(INVALID, "not YAML: %.*s at line %zu, column %zu", STR(text), m.line + 1, m.column + 1);
}

static err too_large(yaml_mark_t m, const char *what)
{
    FAIL(TOO_LARGE, "YAML %s at line %zu, column %zu", what, m.line + 1, m.column + 1);
}

static err parser_failed(const yaml_parser_t *p)
{
    const char *what = p->problem ? p->problem : "it cannot be read";
    if (p->error == YAML_MEMORY_ERROR)
        FAIL(TOO_LARGE, "YAML too large to read");
    if (p->error == YAML_READER_ERROR) /* bytes that are no text; the mark is where reading stands */
        return at_mark(p->mark, "%s (byte %zu)", what, p->problem_offset);
    return at_mark(p->problem_mark, "%s%s%s", p->context ? p->context : "", p->context ? ", " : "", what);
}

/* ---- scalars ---- */

static size_t digits(struct str s, size_t i)
{
    size_t n = 0;
    while (i + n < s.n && s.p[i + n] >= '0' && s.p[i + n] <= '9')
        n++;
    return n;
}

static bool in_list(struct str s, const char *list)
{
    struct str rest = str_of(list);
    for (struct str word; str_cut(&rest, ' ', &word);)
        if (str_eq(s, word))
            return true;
    return false;
}

/* 0o17, 0x1F. */
static bool based(struct str s)
{
    if (s.n < 3 || s.p[0] != '0' || (s.p[1] != 'o' && s.p[1] != 'x'))
        return false;
    const char *set = s.p[1] == 'o' ? "01234567" : "0123456789abcdefABCDEF";
    for (size_t i = 2; i < s.n; i++)
        if (!s.p[i] || !strchr(set, s.p[i]))
            return false;
    return true;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static enum yaml_type number_type(struct str s)
{
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
    size_t before = digits(s, i), after = 0;
    i += before;
    bool dot = i < s.n && s.p[i] == '.';
    if (dot) {
        after = digits(s, ++i);
        i += after;
    }
    if (before + after == 0)
        return YAML_TEXT;
    if (i == s.n)
        return dot ? YAML_FLOAT : YAML_INT;
    if (s.p[i] != 'e' && s.p[i] != 'E')
        return YAML_TEXT;
    i++;
    if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
        i++;
    size_t exponent = digits(s, i);
    return exponent && i + exponent == s.n ? YAML_FLOAT : YAML_TEXT;
}

enum yaml_type yaml_plain_type(struct str s)
{
    if (s.n == 0 || in_list(s, "~ null Null NULL"))
        return YAML_NULL;
    if (in_list(s, "true True TRUE false False FALSE"))
        return YAML_BOOL;
    if (in_list(s, ".inf .Inf .INF +.inf +.Inf +.INF -.inf -.Inf -.INF .nan .NaN .NAN"))
        return YAML_NOT_FINITE;
    return based(s) ? YAML_INT : number_type(s);
}

/* Decimal digits without a plus or leading zeros: JSON's form, of any length. */
static void put_decimal(struct yaml *y, struct str s)
{
    bool minus = s.p[0] == '-';
    size_t i = minus || s.p[0] == '+';
    while (i + 1 < s.n && s.p[i] == '0')
        i++;
    struct str digits_ = str_sub(s, i, s.n);
    json_raw(&y->j, minus && !str_is(digits_, "0") ? fmt(y->t, "-%.*s", STR(digits_)) : digits_);
}

static err put_int(struct yaml *y, struct str s, yaml_mark_t m)
{
    if (!based(s)) {
        if (!isfinite(strtod(str_z(y->t, s), NULL)))
            return at_mark(m, "a number too large for 64 bits");
        put_decimal(y, s);
        return NULL;
    }
    if (s.n > 2 + 16)
        return at_mark(m, "a number over 64 bits");
    unsigned long long v = strtoull(str_z(y->t, str_sub(s, 2, s.n)), NULL, s.p[1] == 'o' ? 8 : 16);
    json_raw(&y->j, fmt(y->t, "%llu", v));
    return NULL;
}

static err put_float(struct yaml *y, struct str s, yaml_mark_t m)
{
    double v = strtod(str_z(y->t, s), NULL);
    if (!isfinite(v))
        return at_mark(m, "a number too large for 64 bits");
    json_f64(&y->j, v);
    return NULL;
}

static err put_scalar(struct yaml *y, enum yaml_type type, struct str s, yaml_mark_t m)
{
    switch (type) {
    case YAML_NULL:
        json_null(&y->j);
        return NULL;
    case YAML_BOOL:
        json_bool(&y->j, s.p[0] == 't' || s.p[0] == 'T');
        return NULL;
    case YAML_INT:
        return put_int(y, s, m);
    case YAML_FLOAT:
        return put_float(y, s, m);
    case YAML_NOT_FINITE:
        return at_mark(m, "'%.*s' has no form in JSON", STR(s));
    case YAML_TEXT:
        break;
    }
    json_str(&y->j, s);
    return NULL;
}

static err unknown_tag(const char *tag, yaml_mark_t m)
{
    auto_arena struct arena *t = arena_new(0);
    return at_mark(m, "the tag '%.*s' is not understood", STR(clip(t, str_of(tag))));
}

/* The type of a scalar: by its tag, its quotes, or its looks. */
static err scalar_type(const yaml_event_t *ev, struct str s, enum yaml_type *out)
{
    static const struct {
        const char *tag;
        enum yaml_type type;
    } tags[] = { { YAML_STR_TAG, YAML_TEXT },  { "!", YAML_TEXT },         { YAML_NULL_TAG, YAML_NULL },
                 { YAML_BOOL_TAG, YAML_BOOL }, { YAML_INT_TAG, YAML_INT }, { YAML_FLOAT_TAG, YAML_FLOAT } };
    const char *tag = (const char *)ev->data.scalar.tag;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    enum yaml_type looks = yaml_plain_type(s);
    *out = plain ? looks : YAML_TEXT;
    if (!tag)
        return NULL;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (strcmp(tag, tags[i].tag))
            continue;
        *out = tags[i].type;
        bool fits = *out == YAML_TEXT || looks == *out ||
                    (*out == YAML_FLOAT && looks == YAML_INT && !based(s));
        return fits ? NULL : at_mark(ev->start_mark, "the value is not what its tag '%s' says", tag);
    }
    return unknown_tag(tag, ev->start_mark);
}

/* ---- anchors ---- */

static err anchor_open(struct yaml *y, const yaml_char_t *name, yaml_mark_t m, long *out)
{
    *out = -1;
    if (!name)
        return NULL;
    if (y->anchors.n == ANCHORS_MAX)
        return too_large(m, "with more than 10000 anchors");
    push(y->t, &y->anchors, (struct anchor){ .name = str_dup(y->t, str_of((const char *)name)) });
    *out = (long)y->anchors.n - 1;
    return NULL;
}

static void anchor_close(struct yaml *y, long i, size_t start, size_t nodes, int height)
{
    if (i < 0)
        return;
    struct anchor *n = &y->anchors.v[i];
    n->start = start;
    n->n = y->j.b.n - start;
    n->nodes = nodes;
    n->height = height;
}

/* A later anchor of the same name hides the earlier. */
static const struct anchor *anchor_find(const struct yaml *y, struct str name)
{
    for (size_t i = y->anchors.n; i-- > 0;)
        if (str_eq(y->anchors.v[i].name, name))
            return &y->anchors.v[i];
    return NULL;
}

/* ---- nodes ---- */

/* Where the text of a value that comes next begins: after the comma that the writer will put. */
static size_t value_start(const struct yaml *y)
{
    return y->j.b.n + (y->j.comma ? 1 : 0);
}

static void node_done(struct yaml *y, int height)
{
    if (y->depth == 0)
        return;
    struct frame *f = &y->frames[y->depth - 1];
    f->wants_key = f->map;
    if (height > f->height)
        f->height = height;
}

static err room_left(struct yaml *y, size_t more, yaml_mark_t m)
{
    return more > OUT_MAX - y->j.b.n || y->j.b.n > OUT_MAX ? too_large(m, "too large") : NULL;
}

static err on_alias(struct yaml *y, const yaml_event_t *ev)
{
    auto_arena struct arena *t = arena_new(0);
    struct str name = str_of((const char *)ev->data.alias.anchor);
    const struct anchor *n = anchor_find(y, name);
    if (y->depth && y->frames[y->depth - 1].wants_key)
        return at_mark(ev->start_mark, "an alias cannot be a key");
    if (!n)
        return at_mark(ev->start_mark, "there is no anchor '%.*s' before this alias", STR(clip(t, name)));
    if (!n->n)
        return at_mark(ev->start_mark, "the alias '%.*s' stands inside its own anchor", STR(clip(t, name)));
    y->alias_nodes += n->nodes;
    y->nodes += n->nodes;
    if (y->alias_nodes > ALIAS_NODES_MAX)
        return too_large(ev->start_mark, "with aliases for more than 10000 nodes");
    if (y->depth + n->height > DEPTH_MAX)
        return too_large(ev->start_mark, "nested too deep");
    TRY(room_left(y, n->n, ev->start_mark));
    json_raw(&y->j, str_sub(json_get(&y->j), n->start, n->start + n->n));
    node_done(y, n->height);
    return NULL;
}

static err on_key(struct yaml *y, const yaml_event_t *ev, struct str s)
{
    struct frame *f = &y->frames[y->depth - 1];
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (ev->data.scalar.anchor)
        return at_mark(ev->start_mark, "a key cannot have an anchor");
    if (plain && str_is(s, "<<"))
        return at_mark(ev->start_mark, "merge keys ('<<') are not part of YAML 1.2; write the fields out");
    push(y->t, &y->keys, (struct key){ str_dup(y->t, s), ev->start_mark });
    json_key(&y->j, s);
    f->wants_key = false;
    return NULL;
}

static err on_scalar(struct yaml *y, const yaml_event_t *ev)
{
    struct str s = { (const char *)ev->data.scalar.value, ev->data.scalar.length };
    TRY(room_left(y, s.n, ev->start_mark));
    if (y->depth && y->frames[y->depth - 1].wants_key)
        return on_key(y, ev, s);
    enum yaml_type type;
    TRY(scalar_type(ev, s, &type));
    long anchor;
    TRY(anchor_open(y, ev->data.scalar.anchor, ev->start_mark, &anchor));
    size_t start = value_start(y);
    y->nodes++;
    TRY(put_scalar(y, type, s, ev->start_mark));
    anchor_close(y, anchor, start, 1, 0);
    node_done(y, 0);
    return NULL;
}

static err on_open(struct yaml *y, const yaml_event_t *ev, bool map)
{
    const char *tag = (const char *)(map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag);
    if (y->depth && y->frames[y->depth - 1].wants_key)
        return at_mark(ev->start_mark, "a key must be text");
    if (y->depth == DEPTH_MAX)
        return too_large(ev->start_mark, "nested too deep");
    if (tag && strcmp(tag, map ? YAML_MAP_TAG : YAML_SEQ_TAG) && strcmp(tag, "!"))
        return unknown_tag(tag, ev->start_mark);
    TRY(room_left(y, 2, ev->start_mark));
    struct frame *f = &y->frames[y->depth++];
    *f = (struct frame){ .map = map, .wants_key = map, .keys_from = y->keys.n, .nodes_from = y->nodes };
    f->start = value_start(y);
    const yaml_char_t *name = map ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor;
    TRY(anchor_open(y, name, ev->start_mark, &f->anchor));
    y->nodes++;
    if (map)
        json_obj(&y->j);
    else
        json_arr(&y->j);
    return NULL;
}

static int key_cmp(const void *x, const void *y)
{
    const struct key *a = x, *b = y;
    int c = str_cmp(a->text, b->text);
    return c ? c : (a->at.index > b->at.index) - (a->at.index < b->at.index);
}

static err keys_differ(struct yaml *y, size_t from)
{
    struct key *k = y->keys.v ? y->keys.v + from : NULL;
    size_t n = y->keys.n - from;
    y->keys.n = from;
    if (n > 1)
        qsort(k, n, sizeof *k, key_cmp);
    for (size_t i = 1; i < n; i++) {
        if (!str_eq(k[i - 1].text, k[i].text))
            continue;
        auto_arena struct arena *t = arena_new(0);
        return at_mark(k[i].at, "the key '%.*s' of line %zu is given again", STR(clip(t, k[i].text)),
                       k[i - 1].at.line + 1);
    }
    return NULL;
}

static err on_close(struct yaml *y)
{
    struct frame *f = &y->frames[--y->depth];
    TRY(keys_differ(y, f->keys_from));
    if (f->map)
        json_obj_end(&y->j);
    else
        json_arr_end(&y->j);
    anchor_close(y, f->anchor, f->start, y->nodes - f->nodes_from, f->height + 1);
    node_done(y, f->height + 1);
    return NULL;
}

/* ---- documents ---- */

static void document_start(struct yaml *y)
{
    arena_reset(y->t);
    y->j = json_new(y->t);
    y->depth = 0;
    y->keys.v = NULL, y->keys.n = y->keys.cap = 0;
    y->anchors.v = NULL, y->anchors.n = y->anchors.cap = 0;
    y->nodes = 0; /* alias_nodes counts on: the limit is the whole text's */
}

static err document_end(struct yaml *y, struct arena *a, struct strs *docs)
{
    struct str json = json_get(&y->j);
    if (str_is(json, "null")) /* nothing between two "---" */
        return NULL;
    if (arena_left(a) < 2048 || json.n > (arena_left(a) - 2048) / 2)
        FAIL(TOO_LARGE, "YAML too large for the memory of one request");
    push(a, docs, str_dup(a, json));
    return NULL;
}

static err on_event(struct yaml *y, const yaml_event_t *ev, struct arena *a, struct strs *docs)
{
    switch (ev->type) {
    case YAML_DOCUMENT_START_EVENT:
        document_start(y);
        return NULL;
    case YAML_DOCUMENT_END_EVENT:
        return document_end(y, a, docs);
    case YAML_ALIAS_EVENT:
        return on_alias(y, ev);
    case YAML_SCALAR_EVENT:
        return on_scalar(y, ev);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(y, ev, false);
    case YAML_MAPPING_START_EVENT:
        return on_open(y, ev, true);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(y);
    default:
        return NULL;
    }
}

static err all_events(struct yaml *y, struct arena *a, struct strs *docs)
{
    for (bool done = false; !done;) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&y->parser, &ev))
            return parser_failed(&y->parser);
        err e = on_event(y, &ev, a, docs);
        done = ev.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&ev);
        TRY(e);
    }
    return NULL;
}

err yaml_to_json(struct arena *a, struct str yaml, struct strs *docs)
{
    auto_arena struct arena *t = arena_new(0);
    struct yaml *y = calloc(1, sizeof *y);
    if (!y || !yaml_parser_initialize(&y->parser)) {
        free(y);
        FAIL(TOO_LARGE, "no memory to read YAML");
    }
    y->t = t;
    struct strs found = { 0 };
    yaml_parser_set_input_string(&y->parser, (const unsigned char *)(yaml.n ? yaml.p : ""), yaml.n);
    err e = all_events(y, a, &found);
    yaml_parser_delete(&y->parser);
    free(y);
    if (!e)
        *docs = found;
    return e;
}
