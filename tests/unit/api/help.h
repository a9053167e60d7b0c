/* help: a whole server on 127.0.0.1 with two small kinds of its own, and clients that talk to it.
 * Kinds    Author; Book {title, author → Author, pages (frozen), also [→ Author], secret, owner (personal)}. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "test.h"
#include <stdlib.h>
#include <unistd.h>

// clang-format off
#define AUTHOR_SPEC(F, O, L, T) \
    F(T, STR, about, 0, "Who it is.")
#define BOOK_PART(F, O, L, T) \
    F(T, REF, editor, 0, "Who looked after it.", .ref = "Author")
#define BOOK_SPEC(F, O, L, T)                                                             \
    F(T, STR,  title,  REQUIRED, "What is on the cover.", .len_max = 100)                 \
    F(T, REF,  author, 0,        "Who wrote it.", .ref = "Author")                        \
    F(T, STRS, also,   0,        "Who else wrote it.", .ref = "Author")                   \
    F(T, I64,  pages,  FROZEN,   "How long it is.", .def = "100", .min = 1, .max = 9999)  \
    F(T, STR,  secret, SECRET,   "Nobody sees it again.")                                 \
    F(T, STR,  owner,  PERSONAL, "Whose it is.")                                          \
    L(T, book_part, parts, 0,    "Its parts.")
#define BOOK_STATUS(F, O, L, T)                                                           \
    F(T, I64, readers, 0, "How many have read it.")                                       \
    F(T, STR, note,    0, "What they say.")
#define BOOK_RENAME(F, O, L, T) \
    F(T, STR, to, REQUIRED, "The new title.")
// clang-format on
SCHEMA(author_spec, AUTHOR_SPEC);
SCHEMA(book_part, BOOK_PART);
SCHEMA(book_spec, BOOK_SPEC);
SCHEMA(book_status, BOOK_STATUS);
SCHEMA(book_rename, BOOK_RENAME);
extern const struct resource author_resource, book_resource, stone_resource;

struct world {
    struct arena *a;
    const char *dir;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct net *net;
    const struct route *tables[4];
    struct str url;
    struct str admin; /* token of all projects */
};
struct world *world_new(void);
void world_free(struct world *);

/* A token with one role, or with all of them. */
struct str token_for(struct world *, const char *project, uint32_t roles);
/* One exchange; the reply lives in w->a. */
struct http_reply call(struct world *, struct str token, enum method m, const char *path, struct str body);
/* As the admin; the status must be as said. */
struct http_reply admin(struct world *, enum method m, const char *path, const char *body, int status);
/* A member of a JSON reply: "metadata.rev"; NULL if it is not there. */
yyjson_val *member(struct world *, struct str json, const char *path);
struct str member_str(struct world *, struct str json, const char *path);
int64_t member_i64(struct world *, struct str json, const char *path);
bool contains(struct str text, const char *part);

#define BOOKS "/api/v1/projects/default/books"
#define AUTHORS "/api/v1/projects/default/authors"
#define AUTHOR(name) \
    "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Author\",\"metadata\":{\"name\":\"" name "\"},\"spec\":{}}"
#define BOOK(name, spec) \
    "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Book\",\"metadata\":{\"name\":\"" name "\"},\"spec\":" spec "}"
#define PROJECT(name) \
    "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Project\",\"metadata\":{\"name\":\"" name "\"},\"spec\":{}}"
