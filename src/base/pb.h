/* pb: protobuf's wire format, read in place and written into a buffer; messages have no code of their own.
 * https://protobuf.dev/programming-guides/encoding/; groups (wire types 3 and 4) are refused. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"

/* ---- reading ---- */
enum pb_wire { PB_VARINT = 0, PB_I64 = 1, PB_BYTES = 2, PB_I32 = 5 };
struct pb_field {
    int number;
    enum pb_wire wire;
    uint64_t value;   /* VARINT, I64, I32: its bits */
    struct str bytes; /* BYTES */
};
/* What a message may hold. Numbers that are not in the list are skipped. */
enum pb_kind { PB_ONE, PB_MANY, PB_VARINTS, PB_FLOATS, PB_DOUBLES };
struct pb_rule {
    int number;
    enum pb_wire wire; /* of ONE and MANY; the other kinds may be packed or not */
    enum pb_kind kind; /* ONE: a second one is refused, as parsers differ on what it means */
    const char *name;
};
struct pb_rules {
    const char *message;
    const struct pb_rule *v;
    size_t n;
};
/* Calls on for each field that has a rule, in order; INVALID for what cannot be read. */
err pb_walk(const struct pb_rules *, struct str bytes, err (*on)(void *arg, const struct pb_field *),
            void *arg);
/* The last BYTES field of that number that can be read; empty if there is none. For messages of errors. */
struct str pb_find(struct str bytes, int number);
/* Numbers in a repeated field: 1 if it is not packed. INVALID if a packed one is cut short. */
err pb_count(const struct pb_field *, enum pb_kind, int64_t *out);
/* Numbers of a repeated VARINTS field, one after another; false at the end. Checked by pb_count before. */
bool pb_next_varint(struct str *packed, uint64_t *out);
/* The next field of a message, known or not; false at its end. INVALID, as *wrong, for what cannot be read. */
bool pb_next(struct str *in, struct pb_field *out, const char **wrong);

/* ---- writing: fields one after another; what is nested is opened and closed, or built before and put as bytes ---- */
void pb_varint(struct buf *b, int field, int64_t v);
void pb_float(struct buf *b, int field, float v);
void pb_double(struct buf *b, int field, double v);
void pb_bytes(struct buf *b, int field, struct str v);
void pb_floats(struct buf *b, int field, const float *v, size_t n);    /* packed */
void pb_varints(struct buf *b, int field, const int64_t *v, size_t n); /* packed */
/* A nested message: what is written until pb_close(), which takes what this returned. */
size_t pb_open(struct buf *b, int field);
void pb_close(struct buf *b, size_t at);
/* n bytes of a BYTES field, for the caller to fill (at once, before the next write). */
char *pb_room(struct buf *b, int field, size_t n);
