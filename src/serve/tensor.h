/* serve/tensor: tensors of a request and an answer, as JSON and as bytes; every protocol's adapter may use it.
 * Owns     nothing. What is read lies in the arena, or, where it can, in the bytes that it came in.
 * Errors   INVALID, in the words that Triton's clients know. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/infer.h"
#include "serve/json_in.h"

/* Below, t comes with type, rank and dims (each from 1 to 2^31 - 1), and gets its data. */
/* "data": flat or nested as the shape says. */
err tensor_of_json(struct json_in *, struct str name, struct tensor *t);
/* Little-endian, row-major; BYTES are texts with their lengths (four bytes) before them. A view of the bytes where these
 * lie as the type needs it, as C and the runtimes read tensors by their type's alignment; else a copy. */
err tensor_of_bytes(struct arena *a, struct str name, struct str bytes, struct tensor *t);
/* The same way out: how many bytes, and the bytes. */
size_t tensor_bytes(const struct tensor *t);
void tensor_put(struct buf *b, const struct tensor *t);

/* {"name", "datatype", "shape"…: the beginning that both forms share; the object stays open. */
void tensor_head(struct buf *b, struct str name, const struct tensor *t);
/* A text with its quotes. */
void text_put(struct buf *b, struct str s);

/* ---- classify.c ---- */
/* The k best of each row of scores, an output of the model, as text "value:index" or, where the model names its classes,
 * "value:index:label": BYTES [rows, k], or [k] of a tensor with one dimension. */
err classes_of(struct arena *a, const struct session_info *, const struct tensor *scores, int64_t k,
               struct tensor *out);
