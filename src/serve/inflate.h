/* serve/inflate: Content-Encoding of bodies, gzip and deflate, both ways, by zlib.
 * Owns     nothing; what is made lies in the arena given.
 * Errors   MEDIA (a coding that is not known), INVALID (damaged), TOO_LARGE (found while inflating: a small body that
 *          would become a huge one costs no more than the limit). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

/* What a server that has these says in Accept-Encoding. */
#define CODINGS "gzip, deflate"
/* *out is body itself for "" and "identity". */
err body_inflate(struct arena *a, struct str coding, struct str body, size_t bytes_max, struct str *out);
/* The first coding of an Accept-Encoding header that is known here and wanted; empty if none is. */
struct str coding_choose(struct str accept);
err body_deflate(struct arena *a, struct str coding, struct str body, struct str *out);
