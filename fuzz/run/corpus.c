/* corpus: gives every file of the folders and files on its command line to one fuzz entry, so that a corpus is a test
 * without a fuzzer. Also tries each input cut short, which finds most reads past the end. */
// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static int seen;

/* A fresh block of exactly n bytes: a read past its end is the sanitizer's. */
static void try_bytes(const char *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static void try_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    static char bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    try_bytes(bytes, n);
    for (size_t cut = 1; cut < 64 && cut < n; cut++)
        try_bytes(bytes, n - cut);
    seen++;
}

static void try_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        try_file(path);
        return;
    }
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            try_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

int main(int argc, char **argv)
{
    try_bytes("", 0);
    for (int i = 1; i < argc; i++)
        try_path(argv[i]);
    printf("%d inputs\n", seen);
    return 0;
}
