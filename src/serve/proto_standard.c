// SPDX-License-Identifier: Apache-2.0
/* The messages of grpc.health.v1 and grpc.reflection (v1, and v1alpha, which differs by its name alone), whose calls
 * src/api/grpc.c answers: https://github.com/grpc/grpc-proto. Only reflection reads these tables. */
#include "serve/proto.h"

// clang-format off
#define F(name, number, type)        { #name, number, PROTO_##type, PROTO_SINGLE }
#define LIST(name, number, type)     { #name, number, PROTO_##type, PROTO_LIST }
#define PICK(name, number, type)     { #name, number, PROTO_##type, PROTO_CHOICE }
#define PART(name, number, message)  { #name, number, PROTO_MESSAGE, PROTO_SINGLE, &message }
#define PARTS(name, number, message) { #name, number, PROTO_MESSAGE, PROTO_LIST, &message }
#define ONE(name, number, message)   { #name, number, PROTO_MESSAGE, PROTO_CHOICE, &message }
#define CHOOSE(id, choice, ...) \
    static const struct proto_message id = { #id, (const struct proto_field[]){ __VA_ARGS__, { 0 } }, choice, false }
#define MESSAGE(id, ...) CHOOSE(id, NULL, __VA_ARGS__)

static const struct proto_enum status = {
    "HealthCheckResponse.ServingStatus",
    (const char *const[]){ "UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", NULL }
};
MESSAGE(HealthCheckRequest, F(service, 1, TEXT));
MESSAGE(HealthCheckResponse, { "status", 1, PROTO_ENUM, PROTO_SINGLE, .values = &status });

MESSAGE(ExtensionRequest, F(containing_type, 1, TEXT), F(extension_number, 2, I32));
CHOOSE(ServerReflectionRequest, "message_request", F(host, 1, TEXT), PICK(file_by_filename, 3, TEXT),
       PICK(file_containing_symbol, 4, TEXT), ONE(file_containing_extension, 5, ExtensionRequest),
       PICK(all_extension_numbers_of_type, 6, TEXT), PICK(list_services, 7, TEXT));
MESSAGE(FileDescriptorResponse, LIST(file_descriptor_proto, 1, BYTES));
MESSAGE(ExtensionNumberResponse, F(base_type_name, 1, TEXT), LIST(extension_number, 2, I32));
MESSAGE(ServiceResponse, F(name, 1, TEXT));
MESSAGE(ListServiceResponse, PARTS(service, 1, ServiceResponse));
MESSAGE(ErrorResponse, F(error_code, 1, I32), F(error_message, 2, TEXT));
CHOOSE(ServerReflectionResponse, "message_response", F(valid_host, 1, TEXT),
       PART(original_request, 2, ServerReflectionRequest), ONE(file_descriptor_response, 4, FileDescriptorResponse),
       ONE(all_extension_numbers_response, 5, ExtensionNumberResponse),
       ONE(list_services_response, 6, ListServiceResponse), ONE(error_response, 7, ErrorResponse));
// clang-format on

static const struct proto_enum *const no_enums[] = { NULL };
static const struct proto_message *const health_messages[] = { &HealthCheckRequest, &HealthCheckResponse,
                                                               NULL };
static const struct proto_enum *const health_enums[] = { &status, NULL };
static const struct proto_method health_methods[] = {
    { "Check", "HealthCheckRequest", "HealthCheckResponse", false, false },
    { "Watch", "HealthCheckRequest", "HealthCheckResponse", false, true },
    { 0 },
};
static const struct proto_message *const reflection_messages[] = {
    &ServerReflectionRequest, &ExtensionRequest,        &ServerReflectionResponse,
    &FileDescriptorResponse,  &ExtensionNumberResponse, &ListServiceResponse,
    &ServiceResponse,         &ErrorResponse,           NULL,
};
static const struct proto_method reflection_methods[] = {
    { "ServerReflectionInfo", "ServerReflectionRequest", "ServerReflectionResponse", true, true },
    { 0 },
};
#define REFLECTION(version)                                                                             \
    {                                                                                                   \
        "grpc/reflection/" version "/reflection.proto", "grpc.reflection." version, "ServerReflection", \
            reflection_messages, no_enums, reflection_methods                                           \
    }
static const struct proto_file health = {
    "grpc/health/v1/health.proto", "grpc.health.v1", "Health", health_messages, health_enums, health_methods
};
static const struct proto_file v1 = REFLECTION("v1"), v1alpha = REFLECTION("v1alpha");
const struct proto_file *const proto_standard[] = { &health, &v1, &v1alpha, NULL };
