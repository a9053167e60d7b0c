/* file: whole files, folders and atomic publication.
 * Errors   NOT_FOUND, FULL (no space), INTERNAL with errno's text; each names the path.
 * Threads  any. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"
#include <stdio.h>

/* The whole file; LIMIT if it is longer than bytes_max. Terminated by a NUL that n does not count. */
err file_read(struct arena *a, const char *path, size_t bytes_max, struct str *out);
/* Writes path.tmp-XXXX, fsyncs, renames to path and fsyncs the folder: path holds old or new, never half. */
err file_write(const char *path, struct str text);
/* rename(tmp, path) and fsync of path's folder; tmp is fsynced by its writer. */
err file_publish(const char *tmp, const char *path);
/* fsync of a finished file by name. */
err file_sync(const char *path);
/* mkdir -p with mode 0700. */
err dir_make(const char *path);
/* Names in a folder, sorted, without "." and ".."; NOT_FOUND if it is not there. */
err dir_list(struct arena *a, const char *path, struct strs *out);
/* Removes a folder and what is in it; never follows links. A missing one is fine. */
err dir_remove(const char *path);
bool file_exists(const char *path);
int64_t file_size(const char *path); /* -1 if it is not there */
/* The file read-only in memory until the arena ends. */
err file_map(struct arena *a, const char *path, struct str *out);
/* SHA-256 of the bytes in lower-case hex (64 digits). */
struct str sha256_hex(struct arena *a, struct str bytes);
void sha256(struct str bytes, uint8_t out[32]);
err file_sha256(struct arena *a, const char *path, struct str *hex, int64_t *size);

static inline void fclose_at(FILE **f)
{
    if (*f)
        fclose(*f);
}
void close_fd(int fd);
static inline void close_at(int *fd)
{
    if (*fd >= 0)
        close_fd(*fd);
}
#define auto_fclose __attribute__((cleanup(fclose_at)))
#define auto_close __attribute__((cleanup(close_at)))
