// SPDX-License-Identifier: Apache-2.0
/* Messages by their tables: between bytes and JSON, and as a descriptor. */
#include "serve/proto.h"

enum { FIELDS_MAX = 64 };

const struct proto_message *proto_message(const struct proto_file *file, struct str name)
{
    for (size_t i = 0; file->messages[i]; i++)
        if (str_eq(str_of(file->messages[i]->name), name))
            return file->messages[i];
    return NULL;
}

const struct proto_method *proto_method(const struct proto_file *file, struct str name)
{
    for (const struct proto_method *m = file->methods; m->name; m++)
        if (str_eq(str_of(m->name), name))
            return m;
    return NULL;
}

static bool is_whole(enum proto_type t)
{
    return t == PROTO_I64 || t == PROTO_U64 || t == PROTO_I32 || t == PROTO_U32;
}

/* ---- bytes to JSON ---- */

static enum pb_wire wire_of(enum proto_type t)
{
    switch (t) {
    case PROTO_F64:
        return PB_I64;
    case PROTO_F32:
        return PB_I32;
    case PROTO_TEXT:
    case PROTO_BYTES:
    case PROTO_MESSAGE:
        return PB_BYTES;
    default:
        return PB_VARINT;
    }
}

static enum pb_kind kind_of(const struct proto_field *f)
{
    bool many = f->form == PROTO_LIST || f->form == PROTO_MAP;
    if (!many)
        return PB_ONE;
    switch (wire_of(f->type)) {
    case PB_I64:
        return PB_DOUBLES;
    case PB_I32:
        return PB_FLOATS;
    case PB_VARINT:
        return PB_VARINTS;
    default:
        return PB_MANY;
    }
}

static size_t rules_make(const struct proto_message *m, struct pb_rule rules[FIELDS_MAX])
{
    size_t n = 0;
    for (const struct proto_field *f = m->fields; f->name && n < FIELDS_MAX; f++)
        rules[n++] = (struct pb_rule){ f->number, f->form == PROTO_MAP ? PB_BYTES : wire_of(f->type),
                                       f->form == PROTO_MAP ? PB_MANY : kind_of(f), f->name };
    return n;
}

struct reading {
    const struct proto_message *m;
    const struct proto_field *f; /* the one that this walk is for */
    struct json *out;
    size_t seen;
};

static err text_read(const struct reading *r, struct str s)
{
    if (!str_utf8_ok(s))
        FAIL(INVALID, "%s: %s is not UTF-8", r->m->name, r->f->name);
    json_str(r->out, s);
    return NULL;
}

static void number_read(const struct reading *r, uint64_t bits)
{
    double d;
    float f;
    uint32_t low = (uint32_t)bits;
    memcpy(&d, &bits, 8);
    memcpy(&f, &low, 4);
    switch (r->f->type) {
    case PROTO_BOOL:
        json_bool(r->out, bits != 0);
        break;
    case PROTO_F64:
    case PROTO_F32:
        json_f64(r->out, r->f->type == PROTO_F64 ? d : (double)f);
        break;
    case PROTO_I32:
        json_i64(r->out, (int32_t)low);
        break;
    case PROTO_U32:
        json_i64(r->out, low);
        break;
    case PROTO_U64:
        json_raw(r->out, fmt(r->out->b.a, "%llu", (unsigned long long)bits));
        break;
    default: /* numbers of enumerations too */
        json_i64(r->out, (int64_t)bits);
    }
}

static err numbers_read(const struct reading *r, const struct pb_field *f)
{
    int64_t n;
    uint64_t v;
    TRY(pb_count(f, kind_of(r->f), &n));
    if (f->wire != PB_BYTES)
        number_read(r, f->value);
    else if (wire_of(r->f->type) == PB_VARINT)
        for (struct str rest = f->bytes; pb_next_varint(&rest, &v);)
            number_read(r, v);
    else
        FAIL(UNSUPPORTED, "%s: %s is not read here", r->m->name, r->f->name);
    return NULL;
}

static err value_read(const struct reading *r, const struct pb_field *f)
{
    switch (r->f->type) {
    case PROTO_TEXT:
        return text_read(r, f->bytes);
    case PROTO_MESSAGE:
        return proto_read(r->f->of, f->bytes, r->out);
    case PROTO_BYTES: /* JSON has none: that something was there, not what */
        json_null(r->out);
        return NULL;
    default:
        if (r->f->form == PROTO_LIST)
            return numbers_read(r, f);
        number_read(r, f->value);
        return NULL;
    }
}

/* A map's entry: 1 is the key, 2 the value. */
static err entry_field_read(void *arg, const struct pb_field *f)
{
    struct reading *r = arg;
    if (f->number == 1) {
        if (!str_utf8_ok(f->bytes))
            FAIL(INVALID, "%s: a key of %s is not UTF-8", r->m->name, r->f->name);
        json_key(r->out, f->bytes);
        r->seen = 1;
        return NULL;
    }
    if (!r->seen)
        json_key(r->out, S(""));
    r->seen = 2;
    return value_read(r, f);
}

static err entry_read(const struct reading *map, struct str bytes)
{
    struct reading r = { map->m, map->f, map->out, 0 };
    const struct pb_rule rules[] = { { 1, PB_BYTES, PB_ONE, "key" },
                                     { 2, wire_of(map->f->type), PB_ONE, "value" } };
    TRY(pb_walk(&(struct pb_rules){ map->m->name, rules, 2 }, bytes, entry_field_read, &r));
    if (r.seen < 2)
        FAIL(INVALID, "%s: an entry of %s has no value, or it stands before its key", map->m->name,
             map->f->name);
    return NULL;
}

static err field_read(void *arg, const struct pb_field *f)
{
    struct reading *r = arg;
    if (f->number != r->f->number)
        return NULL;
    bool alone = r->f->form == PROTO_SINGLE || r->f->form == PROTO_CHOICE;
    if (alone && !r->m->plain)
        json_key(r->out, str_of(r->f->name));
    r->seen++;
    return r->f->form == PROTO_MAP ? entry_read(r, f->bytes) : value_read(r, f);
}

static err fields_read(struct reading *r, const struct pb_rules *rules, struct str bytes)
{
    enum proto_form form = r->f->form;
    if (form == PROTO_LIST || form == PROTO_MAP) {
        if (!r->m->plain)
            json_key(r->out, str_of(r->f->name));
        (form == PROTO_LIST ? json_arr : json_obj)(r->out);
    }
    TRY(pb_walk(rules, bytes, field_read, r));
    if (form == PROTO_LIST)
        json_arr_end(r->out);
    if (form == PROTO_MAP)
        json_obj_end(r->out);
    return NULL;
}

/* One walk for each field, as JSON wants the items of a list together. */
err proto_read(const struct proto_message *m, struct str bytes, struct json *out)
{
    struct pb_rule rules[FIELDS_MAX];
    struct pb_rules all = { m->name, rules, rules_make(m, rules) };
    size_t seen = 0;
    if (!m->plain)
        json_obj(out);
    for (const struct proto_field *f = m->fields; f->name; f++) {
        struct reading r = { m, f, out, 0 };
        TRY(fields_read(&r, &all, bytes));
        seen += r.seen;
    }
    if (!m->plain)
        json_obj_end(out);
    else if (m->choice && seen != 1)
        FAIL(INVALID, "%s has %zu values, not one", m->name, seen);
    return NULL;
}

/* ---- JSON to bytes ---- */

static bool enum_number(const struct proto_enum *e, yyjson_val *v, int64_t *out)
{
    for (size_t i = 0; yyjson_is_str(v) && e->values[i]; i++)
        if (str_eq(str_of(e->values[i]), json_text(v))) {
            *out = (int64_t)i;
            return true;
        }
    return false;
}

/* What pb_varint takes. */
static bool whole_of(const struct proto_field *f, yyjson_val *v, int64_t *out)
{
    if (f->type == PROTO_ENUM)
        return enum_number(f->values, v, out);
    if (f->type == PROTO_BOOL)
        *out = yyjson_get_bool(v);
    else
        *out = yyjson_get_sint(v);
    return f->type == PROTO_BOOL ? yyjson_is_bool(v) : yyjson_is_int(v);
}

static bool fits(const struct proto_field *f, yyjson_val *v)
{
    switch (f->type) {
    case PROTO_BOOL:
        return yyjson_is_bool(v);
    case PROTO_TEXT:
    case PROTO_BYTES:
    case PROTO_ENUM:
        return yyjson_is_str(v);
    case PROTO_F32:
    case PROTO_F64:
        return yyjson_is_num(v);
    case PROTO_MESSAGE:
        return f->of->plain || yyjson_is_obj(v);
    default:
        return yyjson_is_int(v);
    }
}

static err value_write(const struct proto_field *f, int number, yyjson_val *v, struct buf *out);

/* The member that a bare value stands for. */
static err plain_write(const struct proto_message *m, yyjson_val *v, struct buf *out)
{
    size_t i, max;
    yyjson_val *item;
    for (const struct proto_field *f = m->fields; f->name; f++) {
        if (f->form == PROTO_LIST && yyjson_is_arr(v)) {
            yyjson_arr_foreach (v, i, max, item)
                TRY(value_write(f, f->number, item, out));
            return NULL;
        }
        if (fits(f, v))
            return value_write(f, f->number, v, out);
    }
    FAIL(INVALID, "%s: the value is of no type that it has", m->name);
}

static err value_write(const struct proto_field *f, int number, yyjson_val *v, struct buf *out)
{
    int64_t whole;
    struct buf part = buf_new(out->a);
    if (!fits(f, v))
        FAIL(INVALID, "%s is not of its type", f->name);
    switch (f->type) {
    case PROTO_TEXT:
    case PROTO_BYTES:
        pb_bytes(out, number, json_text(v));
        return NULL;
    case PROTO_F32:
        pb_float(out, number, (float)yyjson_get_num(v));
        return NULL;
    case PROTO_F64:
        pb_double(out, number, yyjson_get_num(v));
        return NULL;
    case PROTO_MESSAGE:
        TRY(f->of->plain ? plain_write(f->of, v, &part) : proto_write(f->of, v, &part));
        pb_bytes(out, number, buf_get(&part));
        return NULL;
    default:
        if (!whole_of(f, v, &whole))
            FAIL(INVALID, "%s has no such value", f->name);
        pb_varint(out, number, whole);
        return NULL;
    }
}

static err wholes_write(const struct proto_field *f, yyjson_val *list, struct buf *out)
{
    int64_t *v = NEW_N(out->a, int64_t, yyjson_arr_size(list) + 1);
    size_t i, max;
    yyjson_val *item;
    yyjson_arr_foreach (list, i, max, item)
        if (!whole_of(f, item, &v[i]))
            FAIL(INVALID, "%s[%zu] is not of its type", f->name, i);
    if (max)
        pb_varints(out, f->number, v, max);
    return NULL;
}

static err list_write(const struct proto_field *f, yyjson_val *list, struct buf *out)
{
    size_t i, max;
    yyjson_val *item;
    if (!yyjson_is_arr(list))
        FAIL(INVALID, "%s is no list", f->name);
    if (is_whole(f->type) || f->type == PROTO_BOOL)
        return wholes_write(f, list, out);
    yyjson_arr_foreach (list, i, max, item)
        TRY(value_write(f, f->number, item, out));
    return NULL;
}

static err map_write(const struct proto_field *f, yyjson_val *map, struct buf *out)
{
    size_t i, max;
    yyjson_val *k, *v;
    if (!yyjson_is_obj(map))
        FAIL(INVALID, "%s is no object", f->name);
    yyjson_obj_foreach (map, i, max, k, v) {
        struct buf entry = buf_new(out->a);
        pb_bytes(&entry, 1, json_text(k));
        TRY(value_write(f, 2, v, &entry));
        pb_bytes(out, f->number, buf_get(&entry));
    }
    return NULL;
}

err proto_write(const struct proto_message *m, yyjson_val *obj, struct buf *out)
{
    for (const struct proto_field *f = m->fields; f->name; f++) {
        yyjson_val *v = yyjson_obj_getn(obj, f->name, strlen(f->name));
        if (!v || yyjson_is_null(v))
            continue;
        TRY(f->form == PROTO_LIST  ? list_write(f, v, out)
            : f->form == PROTO_MAP ? map_write(f, v, out)
                                   : value_write(f, f->number, v, out));
    }
    return NULL;
}

/* ---- defaults ---- */

static void scalar_fill(yyjson_val *v, struct json *out)
{
    if (yyjson_is_str(v))
        json_str(out, json_text(v));
    else if (yyjson_is_bool(v))
        json_bool(out, yyjson_get_bool(v));
    else if (yyjson_is_int(v))
        json_i64(out, yyjson_get_sint(v));
    else
        json_f64(out, yyjson_get_num(v));
}

static void value_fill(const struct proto_field *f, yyjson_val *v, struct json *out)
{
    if (f->type == PROTO_MESSAGE)
        proto_fill(f->of, v, out);
    else
        scalar_fill(v, out);
}

static void default_fill(const struct proto_field *f, struct json *out)
{
    if (f->type == PROTO_TEXT || f->type == PROTO_BYTES)
        json_str(out, S(""));
    else if (f->type == PROTO_ENUM)
        json_str(out, str_of(f->values->values[0]));
    else if (f->type == PROTO_BOOL)
        json_bool(out, false);
    else
        json_i64(out, 0);
}

static void many_fill(const struct proto_field *f, yyjson_val *v, struct json *out)
{
    size_t i, max;
    yyjson_val *k, *item;
    if (f->form == PROTO_LIST) {
        json_arr(out);
        yyjson_arr_foreach (v, i, max, item)
            value_fill(f, item, out);
        json_arr_end(out);
        return;
    }
    json_obj(out);
    yyjson_obj_foreach (v, i, max, k, item) {
        json_key(out, json_text(k));
        value_fill(f, item, out);
    }
    json_obj_end(out);
}

void proto_fill(const struct proto_message *m, yyjson_val *obj, struct json *out)
{
    json_obj(out);
    for (const struct proto_field *f = m->fields; f->name; f++) {
        yyjson_val *v = yyjson_obj_getn(obj, f->name, strlen(f->name));
        bool many = f->form == PROTO_LIST || f->form == PROTO_MAP;
        if (!v && !many && (f->type == PROTO_MESSAGE || f->form == PROTO_CHOICE))
            continue;
        json_key(out, str_of(f->name));
        if (many)
            many_fill(f, v, out);
        else if (v)
            value_fill(f, v, out);
        else
            default_fill(f, out);
    }
    json_obj_end(out);
}

/* ---- descriptor: field numbers of google/protobuf/descriptor.proto ---- */

/* "B" if name is "A.B" and inside of outer "A" (or outer is empty and there is no dot). */
static bool inner_name(const char *name, struct str outer, struct str *out)
{
    struct str s = str_of(name);
    if (outer.n) {
        if (s.n <= outer.n || !str_starts(s, outer) || s.p[outer.n] != '.')
            return false;
        s = str_sub(s, outer.n + 1, s.n);
    }
    *out = s;
    return str_find(s, '.') == s.n;
}

/* settings: SettingsEntry, as protoc names it. */
static struct str entry_name(struct arena *a, const char *field)
{
    struct buf b = buf_new(a);
    bool up = true;
    for (const char *p = field; *p; p++) {
        char c = (char)(up && *p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        up = *p == '_';
        if (!up)
            buf_put(&b, &c, 1);
    }
    buf_str(&b, S("Entry"));
    return buf_get(&b);
}

static void field_describe(struct buf *out, const struct proto_file *file, const struct proto_field *f,
                           bool choice, int label, struct str type)
{
    struct buf b = buf_new(out->a);
    pb_bytes(&b, 1, str_of(f->name));
    pb_varint(&b, 3, f->number);
    pb_varint(&b, 4, label);
    pb_varint(&b, 5, type.n && f->type != PROTO_ENUM ? PROTO_MESSAGE : f->type);
    if (type.n)
        pb_bytes(&b, 6, fmt(out->a, ".%s.%.*s", file->package, STR(type)));
    if (choice)
        pb_varint(&b, 9, 0);
    pb_bytes(out, 2, buf_get(&b));
}

static struct str type_of(const struct proto_field *f)
{
    return f->type == PROTO_MESSAGE ? str_of(f->of->name)
           : f->type == PROTO_ENUM  ? str_of(f->values->name)
                                    : S("");
}

static void entry_describe(struct buf *out, const struct proto_file *file, const struct proto_field *f)
{
    struct buf b = buf_new(out->a), options = buf_new(out->a);
    pb_bytes(&b, 1, entry_name(out->a, f->name));
    field_describe(&b, file, &(struct proto_field){ "key", 1, PROTO_TEXT }, false, 1, S(""));
    field_describe(&b, file, &(struct proto_field){ "value", 2, f->type }, false, 1, type_of(f));
    pb_varint(&options, 7, 1); /* map_entry */
    pb_bytes(&b, 7, buf_get(&options));
    pb_bytes(out, 3, buf_get(&b));
}

static void enums_describe(struct buf *out, const struct proto_file *file, struct str outer, int number)
{
    struct str name;
    for (size_t i = 0; file->enums[i]; i++) {
        if (!inner_name(file->enums[i]->name, outer, &name))
            continue;
        struct buf b = buf_new(out->a);
        pb_bytes(&b, 1, name);
        for (int k = 0; file->enums[i]->values[k]; k++) {
            struct buf v = buf_new(out->a);
            pb_bytes(&v, 1, str_of(file->enums[i]->values[k]));
            pb_varint(&v, 2, k);
            pb_bytes(&b, 2, buf_get(&v));
        }
        pb_bytes(out, number, buf_get(&b));
    }
}

static void messages_describe(struct buf *out, const struct proto_file *file, struct str outer, int number);

static void message_describe(struct buf *out, const struct proto_file *file, const struct proto_message *m)
{
    for (const struct proto_field *f = m->fields; f->name; f++) {
        bool many = f->form == PROTO_LIST || f->form == PROTO_MAP;
        struct str type = f->form == PROTO_MAP
                              ? fmt(out->a, "%s.%.*s", m->name, STR(entry_name(out->a, f->name)))
                              : type_of(f);
        field_describe(out, file, f, f->form == PROTO_CHOICE, many ? 3 : 1, type);
    }
    messages_describe(out, file, str_of(m->name), 3);
    for (const struct proto_field *f = m->fields; f->name; f++)
        if (f->form == PROTO_MAP)
            entry_describe(out, file, f);
    enums_describe(out, file, str_of(m->name), 4);
    if (m->choice) {
        struct buf one = buf_new(out->a);
        pb_bytes(&one, 1, str_of(m->choice));
        pb_bytes(out, 8, buf_get(&one));
    }
}

static void messages_describe(struct buf *out, const struct proto_file *file, struct str outer, int number)
{
    struct str name;
    for (size_t i = 0; file->messages[i]; i++) {
        if (!inner_name(file->messages[i]->name, outer, &name))
            continue;
        struct buf b = buf_new(out->a);
        pb_bytes(&b, 1, name);
        message_describe(&b, file, file->messages[i]);
        pb_bytes(out, number, buf_get(&b));
    }
}

static void service_describe(struct buf *out, const struct proto_file *file)
{
    struct buf b = buf_new(out->a);
    pb_bytes(&b, 1, str_of(file->service));
    for (const struct proto_method *m = file->methods; m->name; m++) {
        struct buf method = buf_new(out->a);
        pb_bytes(&method, 1, str_of(m->name));
        pb_bytes(&method, 2, fmt(out->a, ".%s.%s", file->package, m->in));
        pb_bytes(&method, 3, fmt(out->a, ".%s.%s", file->package, m->out));
        if (m->many_in)
            pb_varint(&method, 5, 1);
        if (m->many_out)
            pb_varint(&method, 6, 1);
        pb_bytes(&b, 2, buf_get(&method));
    }
    pb_bytes(out, 6, buf_get(&b));
}

struct str proto_descriptor(const struct proto_file *file, struct arena *a)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, str_of(file->name));
    pb_bytes(&b, 2, str_of(file->package));
    messages_describe(&b, file, S(""), 4);
    enums_describe(&b, file, S(""), 5);
    service_describe(&b, file);
    pb_bytes(&b, 12, S("proto3"));
    return buf_get(&b);
}
