/* schema: one table per kind of thing; the row is the struct member, the JSON key, the flag, the
 * doc line, and what the API checks.
 * Flow     X-macro table --SCHEMA--> struct + descriptor --> read, write, docs, OpenAPI, SQL views.
 * Owns     nothing; what is read lives in the arena given.
 * Errors   INVALID with the path of the field ("spec.rules[2].max") and the nearest right name;
 *          TOO_LARGE for text, lists and depths over their bounds.
 * Users' own schemas (signatures, parameters) are the same descriptor, made by schema_new(). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include <math.h>
#include <yyjson.h>

enum field_type {
    F_BOOL,     /* bool */
    F_I64,      /* int64_t */
    F_F64,      /* double; NaN: not given */
    F_STR,      /* struct str */
    F_ENUM,     /* int, index into .values; written as its name */
    F_TIME,     /* int64_t microseconds; 0: not given */
    F_DURATION, /* int64_t milliseconds, written "2h" */
    F_SIZE,     /* int64_t bytes, written "16Gi" */
    F_REF,      /* struct str, the name of a resource of kind .ref in the same project */
    F_JSON,     /* struct str, any JSON value, kept as compact text */
    F_STRS,     /* struct strs, a list of texts */
    F_OBJ,      /* struct of .sub, in place */
    F_LIST,     /* struct list of .sub */
    F_MAP,      /* struct pairs: text → text (numbers and booleans are taken as their text) */
};

enum field_flag {
    REQUIRED = 1 << 0,
    FROZEN = 1 << 1,   /* set at creation, refused when changed */
    SECRET = 1 << 2,   /* written, never read back */
    PERSONAL = 1 << 3, /* masked for those who may not see it */
    COLUMN = 1 << 4,   /* shown in tables by `dhow get` */
};

/* A list of structs of one schema: element i is at (char *)v + i * schema->size. */
struct list {
    void *v;
    size_t n;
};
struct pair {
    struct str key, value;
};
struct pairs {
    struct pair *v;
    size_t n, cap;
};

struct schema;
struct field {
    struct str name; /* as in JSON: camelCase of the member's snake_case, made by the macro's reader */
    enum field_type type;
    uint32_t flags;
    size_t offset;
    const char *doc;           /* a whole sentence */
    const struct schema *sub;  /* OBJ, LIST */
    const char *const *values; /* ENUM, NULL-terminated */
    const char *ref;           /* REF: the kind's name */
    const char *def;           /* the default, written as a user would */
    double min, max;           /* numbers, times (µs), durations (ms), sizes (bytes); both 0: unbounded;
                               * max < min: no upper bound. Text, lists, maps: the least length, and
                               * another way to say len_max */
    int64_t len_max;           /* bytes of text (0: 4096; JSON: 1 MiB), items of lists and maps (0: 1000) */
    bool is_name;              /* text (or each of STRS) follows the grammar of names:
                               * [a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])? */
    bool verbatim;             /* name is the JSON key as it stands; schema_add() sets it */
};
/* Not given, when there is no .def: "" (also for REF and names), NaN, time 0, false, 0, the first of
 * .values, no items. STRS with .values or .ref: each item is one of them, or a name. */
struct schema {
    struct str name; /* "dataset_spec" */
    const char *doc;
    size_t size;
    const struct field *fields;
    size_t n;
};

/* The C type of each field type. */
#define CTYPE_BOOL bool
#define CTYPE_I64 int64_t
#define CTYPE_F64 double
#define CTYPE_STR struct str
#define CTYPE_ENUM int
#define CTYPE_TIME int64_t
#define CTYPE_DURATION int64_t
#define CTYPE_SIZE int64_t
#define CTYPE_REF struct str
#define CTYPE_JSON struct str
#define CTYPE_STRS struct strs
#define CTYPE_MAP struct pairs

/* A table is a macro TABLE(F, O, L, T):
 *   F(T, TYPE, member, flags, "Doc.", .max = 64)       a plain field
 *   O(T, sub, member, flags, "Doc.")                   an object of schema sub, in place
 *   L(T, sub, member, flags, "Doc.", .len_max = 50)    a list of schema sub
 * SCHEMA(name, TABLE) in a header gives `struct name` and `name_schema`;
 * SCHEMA_TABLE(name, TABLE, "Doc.") in one source file gives the descriptor. */
// clang-format off
#define SCHEMA_MEMBER_F_(T, TYPE, member, flags, doc, ...) CTYPE_##TYPE member;
#define SCHEMA_MEMBER_O_(T, sub_, member, flags, doc, ...) struct sub_ member;
#define SCHEMA_MEMBER_L_(T, sub_, member, flags, doc, ...) struct list member;
#define SCHEMA_ROW_F_(T, TYPE, member, flags_, doc_, ...)                       \
    { .name = { #member, sizeof #member - 1 }, .type = F_##TYPE, .flags = flags_, \
      .offset = offsetof(struct T, member), .doc = doc_, ##__VA_ARGS__ },
#define SCHEMA_ROW_O_(T, sub_, member, flags_, doc_, ...)                       \
    { .name = { #member, sizeof #member - 1 }, .type = F_OBJ, .flags = flags_,  \
      .offset = offsetof(struct T, member), .doc = doc_, .sub = &sub_##_schema, ##__VA_ARGS__ },
#define SCHEMA_ROW_L_(T, sub_, member, flags_, doc_, ...)                       \
    { .name = { #member, sizeof #member - 1 }, .type = F_LIST, .flags = flags_, \
      .offset = offsetof(struct T, member), .doc = doc_, .sub = &sub_##_schema, ##__VA_ARGS__ },
#define SCHEMA(T, TABLE)                                                        \
    struct T { TABLE(SCHEMA_MEMBER_F_, SCHEMA_MEMBER_O_, SCHEMA_MEMBER_L_, T) };  \
    extern const struct schema T##_schema
#define SCHEMA_TABLE(T, TABLE, doc_)                                            \
    static const struct field T##_fields_[] = { TABLE(SCHEMA_ROW_F_, SCHEMA_ROW_O_, SCHEMA_ROW_L_, T) }; \
    const struct schema T##_schema = { .name = { #T, sizeof #T - 1 }, .doc = doc_, .size = sizeof(struct T), \
        .fields = T##_fields_, .n = sizeof T##_fields_ / sizeof *T##_fields_ }
// clang-format on
/* Members are snake_case in C and camelCase in JSON ("event_time" ↔ "eventTime"): field_key(). */
struct str field_key(struct arena *a, const struct field *f);

/* A descriptor made at run time; fields are laid out in the order added. Text of f but its name is
 * borrowed. The caller sees to it that no two names are the same (schema_field()) and that a user's
 * default is right (field_set_text()); a wrong one counts as none. */
struct schema *schema_new(struct arena *a, struct str name, const char *doc);
/* Adds f (offset is set here); later calls move nothing. Names are JSON keys as they stand. */
void schema_add(struct arena *a, struct schema *s, struct field f);
const struct field *schema_field(const struct schema *s, struct str json_key);

/* ---- reading ---- */
enum read_flag {
    READ_PARTIAL = 1 << 0, /* REQUIRED fields may be missing */
    READ_LENIENT = 1 << 1, /* unknown fields are skipped: only for what we wrote ourselves */
};
/* Parses JSON text (strict; depth ≤ 64, duplicate keys refused) into a document that lives in a. */
err json_parse(struct arena *a, struct str text, yyjson_val **out);
/* JSON → struct at out (schema->size bytes): defaults first, then every key checked. path is the
 * prefix of error paths ("" or "spec"). NULL or a JSON null in place of the object gives defaults,
 * or INVALID naming the first REQUIRED field. A null in place of a value is as if it were not there.
 * An OBJ that is not REQUIRED may be missing even if some of its own fields are REQUIRED. */
err schema_read(const struct schema *, struct arena *a, struct str path, yyjson_val *in, unsigned flags,
                void *out);
/* json_parse + schema_read. */
err schema_read_text(const struct schema *, struct arena *a, struct str path, struct str text, unsigned flags,
                     void *out);
/* Defaults alone. */
void schema_defaults(const struct schema *, struct arena *a, void *out);
/* One field of obj from text as people write it in flags, variables and .def: "true", "0.5", "2h", a
 * name of .values; STRS "a,b"; MAP "k=v,k2=v2"; JSON, OBJ and LIST as JSON text. path is the field's. */
err field_set_text(const struct field *f, struct arena *a, struct str path, struct str text, void *obj);
/* YAML text of one or more documents → a list of JSON texts. YAML 1.2 core types (only true/false are
 * booleans), no anchors expanded beyond 10,000 nodes, depth ≤ 64; errors give line and column.
 * Empty documents are left out. */
err yaml_to_json(struct arena *a, struct str yaml, struct strs *docs);
/* JSON text → YAML text, block style. */
err json_to_yaml(struct arena *a, struct str json, struct str *out);

/* ---- writing ---- */
enum write_flag {
    WRITE_SECRETS = 1 << 0,  /* for the store only */
    WRITE_PERSONAL = 1 << 1, /* else masked as "***" */
    WRITE_DEFAULTS = 1 << 2, /* fields that equal their default too, but for those not given */
};
void schema_write(const struct schema *, struct json *j, const void *obj, unsigned flags);
struct str schema_text(const struct schema *, struct arena *a, const void *obj, unsigned flags);
/* One field as text for a table cell. */
struct str field_text(struct arena *a, const struct field *f, const void *obj);
/* INVALID naming the first FROZEN field in which the two differ. */
err schema_frozen_same(const struct schema *, struct arena *a, struct str path, const void *before,
                       const void *after);
bool name_ok(struct str s); /* the grammar of names, see is_name */

/* ---- what else a table gives ---- */
/* The JSON Schema (2020-12) of it, as an object without $id, nested ones in place. */
void schema_json_schema(const struct schema *, struct json *j);
/* Markdown reference: one row per field (name, type, default, doc), nested ones below. */
void schema_markdown(const struct schema *, struct buf *b, struct str title);
/* The select list of an SQL view over columns spec/status of JSON text ("json_extract(spec,'$.x') as x");
 * SQLite's and PostgreSQL's dialects differ only in the accessor. */
enum sql_dialect { SQL_SQLITE, SQL_POSTGRES };
void schema_sql_columns(const struct schema *, enum sql_dialect, struct str json_column, struct buf *b);
