// SPDX-License-Identifier: Apache-2.0
#define SUITE base_pb
#include "base/base.h"
#include "test.h"

/* A message inside a message, each as long as n makes it, is read back whole; lengths are as short as they can be. */
TEST(nested_messages_of_any_length)
{
    static const size_t lengths[] = { 0, 1, 125, 126, 127, 128, 129, 16381, 16384, 70000, 3 << 20 };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buf b = buf_new(a), flat = buf_new(a), inner = buf_new(a);
        struct str text = { arena_alloc(a, lengths[i] + 1, 1), lengths[i] };
        pb_varint(&b, 1, -1);
        size_t outer = pb_open(&b, 2), in = pb_open(&b, 3);
        pb_bytes(&b, 4, text);
        pb_close(&b, in);
        pb_double(&b, 5, 0.25);
        pb_close(&b, outer);
        memset(pb_room(&b, 6, 3), 'x', 3);

        pb_bytes(&inner, 4, text); /* the same, built inside out */
        struct buf middle = buf_new(a);
        pb_bytes(&middle, 3, buf_get(&inner));
        pb_double(&middle, 5, 0.25);
        pb_varint(&flat, 1, -1);
        pb_bytes(&flat, 2, buf_get(&middle));
        pb_bytes(&flat, 6, S("xxx"));
        CHECK(str_eq(buf_get(&b), buf_get(&flat)));
        CHECK(str_eq(pb_find(pb_find(pb_find(buf_get(&b), 2), 3), 4), text));
    }
}

TEST(fields_one_after_another)
{
    static const struct {
        struct str bytes;
        size_t fields;
        bool whole;
    } rows[] = {
        { S_INIT(""), 0, true },
        { S_INIT("\x08\x01\x12\x02hi\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\xf0\x3f"), 4, true },
        { S_INIT("\x08\x01\x12\x03hi"), 1, false },
        { S_INIT("\x0b"), 0, false },                                         /* a group */
        { S_INIT("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), 0, false }, /* over 64 bits */
        { S_INIT("\x00\x01"), 0, false },                                     /* number 0 */
        { S_INIT("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str rest = rows[i].bytes;
        struct pb_field f;
        const char *wrong;
        size_t n = 0;
        while (pb_next(&rest, &f, &wrong))
            n++;
        CHECK(n == rows[i].fields && !wrong == rows[i].whole);
    }
}
