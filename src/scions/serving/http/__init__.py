"""The HTTP API: request and response bodies, keys, middleware and the OpenAPI document."""
