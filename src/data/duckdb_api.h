/* The part of DuckDB's C API that duck.c uses, declared in our own words, so that no header of theirs is
 * needed: the library is found at run time (duck.c). Its C API is stable within a major version. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ddb_database_ *ddb_database;
typedef struct ddb_connection_ *ddb_connection;
typedef struct ddb_config_ *ddb_config;
typedef struct ddb_statement_ *ddb_statement;
typedef struct ddb_extracted_ *ddb_extracted;
typedef struct ddb_pending_ *ddb_pending;
typedef struct ddb_chunk_ *ddb_chunk;
typedef struct ddb_vector_ *ddb_vector;
typedef struct ddb_type_ *ddb_type;
typedef struct ddb_function_ *ddb_function;
typedef struct ddb_call_ *ddb_call; /* what bind, init and function of a table function are given */

struct ddb_result {
    uint64_t old_[3];
    void *old_columns;
    char *old_error;
    void *internal;
};
struct ddb_progress {
    double percentage;
    uint64_t rows_done, rows_total;
};
/* Text of up to 12 bytes stands in place (zero-filled), longer text behind a pointer. */
union ddb_string {
    struct {
        uint32_t n;
        char inlined[12];
    };
    struct {
        uint32_t n_;
        char prefix[4];
        const char *far;
    };
};
_Static_assert(sizeof(union ddb_string) == 16 && sizeof(struct ddb_result) == 48, "DuckDB's layouts");

enum { DDB_OK = 0 };
enum ddb_type_id { DDB_BOOLEAN = 1, DDB_BIGINT = 5, DDB_DOUBLE = 11, DDB_TIMESTAMP = 12, DDB_VARCHAR = 17 };
enum { DDB_STATEMENT_SELECT = 1 };
enum ddb_pending_state { DDB_READY = 0, DDB_NOT_READY = 1, DDB_ERROR = 2, DDB_NO_TASKS = 3 };

// clang-format off
#define DDB_FUNCTIONS(D) /* result, name without "duckdb_", parameters */                                        \
    D(const char *, library_version, (void))                                                                     \
    D(void, free, (void *))                                                                                      \
    D(int, create_config, (ddb_config *out))                                                                     \
    D(int, set_config, (ddb_config, const char *name, const char *value))                                        \
    D(void, destroy_config, (ddb_config *))                                                                      \
    D(int, open_ext, (const char *path, ddb_database *out, ddb_config, char **error))                            \
    D(void, close, (ddb_database *))                                                                             \
    D(int, connect, (ddb_database, ddb_connection *out))                                                         \
    D(void, disconnect, (ddb_connection *))                                                                      \
    D(void, interrupt, (ddb_connection))                                                                         \
    D(struct ddb_progress, query_progress, (ddb_connection))                                                     \
    D(uint64_t, extract_statements, (ddb_connection, const char *sql, ddb_extracted *out))                       \
    D(const char *, extract_statements_error, (ddb_extracted))                                                   \
    D(int, prepare_extracted_statement, (ddb_connection, ddb_extracted, uint64_t i, ddb_statement *out))         \
    D(void, destroy_extracted, (ddb_extracted *))                                                                \
    D(int, prepare, (ddb_connection, const char *sql, ddb_statement *out))                                       \
    D(const char *, prepare_error, (ddb_statement))                                                              \
    D(int, prepared_statement_type, (ddb_statement))                                                             \
    D(void, destroy_prepare, (ddb_statement *))                                                                  \
    D(int, pending_prepared, (ddb_statement, ddb_pending *out))                                                  \
    D(int, pending_prepared_streaming, (ddb_statement, ddb_pending *out))                                        \
    D(const char *, pending_error, (ddb_pending))                                                                \
    D(int, pending_execute_task, (ddb_pending))                                                                  \
    D(bool, pending_execution_is_finished, (int state))                                                          \
    D(int, execute_pending, (ddb_pending, struct ddb_result *out))                                               \
    D(void, destroy_pending, (ddb_pending *))                                                                    \
    D(void, destroy_result, (struct ddb_result *))                                                               \
    D(const char *, result_error, (struct ddb_result *))                                                         \
    D(uint64_t, row_count, (struct ddb_result *))                                                                \
    D(uint64_t, column_count, (struct ddb_result *))                                                             \
    D(const char *, column_name, (struct ddb_result *, uint64_t i))                                              \
    D(int, column_type, (struct ddb_result *, uint64_t i))                                                       \
    D(ddb_chunk, fetch_chunk, (struct ddb_result))                                                               \
    D(void, destroy_data_chunk, (ddb_chunk *))                                                                   \
    D(uint64_t, data_chunk_get_size, (ddb_chunk))                                                                \
    D(void, data_chunk_set_size, (ddb_chunk, uint64_t))                                                          \
    D(ddb_vector, data_chunk_get_vector, (ddb_chunk, uint64_t i))                                                \
    D(uint64_t, vector_size, (void))                                                                             \
    D(void *, vector_get_data, (ddb_vector))                                                                     \
    D(uint64_t *, vector_get_validity, (ddb_vector))                                                             \
    D(ddb_vector, list_vector_get_child, (ddb_vector))                                                           \
    D(void, vector_ensure_validity_writable, (ddb_vector))                                                       \
    D(void, vector_assign_string_element_len, (ddb_vector, uint64_t i, const char *, uint64_t n))                \
    D(ddb_type, create_logical_type, (int))                                                                      \
    D(void, destroy_logical_type, (ddb_type *))                                                                  \
    D(ddb_function, create_table_function, (void))                                                               \
    D(void, destroy_table_function, (ddb_function *))                                                            \
    D(void, table_function_set_name, (ddb_function, const char *))                                               \
    D(void, table_function_set_extra_info, (ddb_function, void *, void (*)(void *)))                             \
    D(void, table_function_set_bind, (ddb_function, void (*)(ddb_call)))                                         \
    D(void, table_function_set_init, (ddb_function, void (*)(ddb_call)))                                         \
    D(void, table_function_set_function, (ddb_function, void (*)(ddb_call, ddb_chunk)))                          \
    D(int, register_table_function, (ddb_connection, ddb_function))                                              \
    D(void *, bind_get_extra_info, (ddb_call))                                                                   \
    D(void, bind_add_result_column, (ddb_call, const char *, ddb_type))                                          \
    D(void, bind_set_cardinality, (ddb_call, uint64_t, bool exact))                                              \
    D(void *, function_get_extra_info, (ddb_call))
// clang-format on

struct duckdb_api {
#define D(result, name, parameters) result(*name) parameters;
    DDB_FUNCTIONS(D)
#undef D
};
